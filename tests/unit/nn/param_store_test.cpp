#include <algorithm>
#include <cmath>
#include <map>

#include <gtest/gtest.h>

#include <ziggurat/comm/thread.h>
#include <ziggurat/nn/param_store.h>

namespace ziggurat::nn {
namespace {

ParamSpec experts(int64_t begin, int64_t end, int ep) {
  return {.name = "experts.weight",
          .global_shape = {4, 3, 5},
          .init = Init::normal(0.5),
          .row_begin = begin,
          .row_end = end,
          .expert_parallel = ep};
}

TEST(ParamStore, AnExpertStartsTheSameWhateverTheLayout) {
  ParamStore whole({});
  const Param& all = whole.add(experts(0, 4, 1));
  whole.finalize();
  for (int64_t rank = 0; rank < 2; ++rank) {
    ParamStore half({});
    const Param& mine = half.add(experts(2 * rank, 2 * rank + 2, 2));
    half.finalize();
    ASSERT_EQ(mine.value.shape(), (Shape{2, 3, 5}));
    for (int64_t i = 0; i < 30; ++i)
      EXPECT_EQ(mine.value.data<float>()[i], all.value.data<float>()[30 * rank + i]);
    EXPECT_EQ(half.local_parameters(), 30);
    EXPECT_EQ(half.global_parameters(), 60);
  }
}

// Queries, keys and values each cut into parts; columns; biases: every element as in the whole tensor, also
// in the range that a rank owns.
TEST(ParamStore, PartsOfACutParameterStartAsTheWhole) {
  const Shape qkv{12, 5}, out{3, 8}, bias{12};
  const std::vector<int64_t> pieces = {6, 2, 4};
  const auto spec = [](const char* name, const Shape& shape, std::vector<Box> cut) {
    return ParamSpec{.name = name, .global_shape = shape, .init = Init::normal(1), .cut = std::move(cut)};
  };
  ParamStore whole({});
  std::map<std::string, const Param*> all;
  for (const auto& [name, shape] : {std::pair("qkv", qkv), {"out", out}, {"bias", bias}}) {
    all[name] = &whole.add(spec(name, shape, {}));
  }
  whole.finalize();
  std::map<std::string, int64_t> seen;
  for (int64_t part = 0; part < 2; ++part) {
    ParamStore store({});
    store.add(spec("qkv", qkv, cut_rows(qkv, pieces, part, 2)));
    store.add(spec("out", out, cut_columns(out, part, 2)));
    store.add(spec("bias", bias, cut_rows(bias, pieces, part, 2)));
    store.finalize();
    EXPECT_EQ(store.find("qkv").param.value.shape(), (Shape{6, 5}));
    EXPECT_EQ(store.find("out").param.value.shape(), (Shape{3, 4}));
    for (const ParamEntry& entry : store.entries()) {
      const std::string& name = entry.spec.name;
      const float *mine = entry.param.value.data<float>(), *its = all.at(name)->value.data<float>();
      int64_t told = 0;
      for_each_held_run(entry.spec, 0, entry.numel, [&](int64_t first, int64_t at, int64_t n) {
        EXPECT_EQ(at, told) << name;
        for (int64_t i = 0; i < n; ++i) EXPECT_EQ(mine[at + i], its[first + i]) << name << " " << first + i;
        told += n;
      });
      EXPECT_EQ(told, entry.numel) << name;
      seen[name] += told;
      // Some elements of it, as boxes: each in one piece of memory.
      int64_t next = 0;
      for_each_held_box(entry.spec, 1, entry.numel - 1, [&](const Box& box, int64_t at) {
        EXPECT_EQ(at, next) << name;
        EXPECT_TRUE(fits(box, entry.spec.global_shape));
        next += box.numel();
      });
      EXPECT_EQ(next, entry.numel - 2) << name;
    }
    // Rows 3 to 6 of the queries are the second part's first ones.
    EXPECT_EQ(store.find("qkv").first, part * 15);
    EXPECT_EQ(store.find("out").first, part * 4);
    EXPECT_TRUE(store.groups()[0].cut);
  }
  for (const auto& [name, n] : seen) EXPECT_EQ(n, all.at(name)->value.numel()) << name;
  EXPECT_THROW(cut_rows(qkv, {7, 5}, 0, 2), Error);
  EXPECT_THROW(cut_columns(qkv, 0, 2), Error);
}

TEST(ParamStore, WhatIsOnItsWayArrivesBeforeItsMemoryGoes) {
  bool arrived = false;
  {
    ParamStore store({});
    const Param& p = store.add({.name = "p", .global_shape = {1024, 1024}, .init = Init::zeros()});
    store.finalize();
    store.expect_values(0, Work([value = p.value, &arrived] {
                          std::fill_n(value.data<float>(), value.numel(), 1.0f);
                          arrived = true;
                        }));
  }
  EXPECT_TRUE(arrived);
}

TEST(ParamStore, IdenticalRowsRepeatTheFirst) {
  ParamStore store({});
  ParamSpec spec = experts(0, 4, 1);
  spec.identical_rows = true;
  const Param& p = store.add(spec);
  store.finalize();
  for (int64_t i = 0; i < 60; ++i) EXPECT_EQ(p.value.data<float>()[i], p.value.data<float>()[i % 15]);
}

TEST(ParamStore, ValuesFollowTheirLaw) {
  ParamStore store({});
  const Param& n = store.add({.name = "n", .global_shape = {100, 100}, .init = Init::normal(0.1)});
  const Param& u = store.add({.name = "u", .global_shape = {100, 100}, .init = Init::uniform(0.25)});
  const Param& one = store.add({.name = "one", .global_shape = {7}, .init = Init::ones(), .matrix = false});
  store.finalize();
  double n2 = 0, u2 = 0;
  for (int i = 0; i < 10000; ++i) {
    n2 += std::pow(n.value.data<float>()[i], 2) / 10000;
    u2 += std::pow(u.value.data<float>()[i], 2) / 10000;
    EXPECT_LE(std::abs(u.value.data<float>()[i]), 0.25);
  }
  EXPECT_NEAR(std::sqrt(n2), 0.1, 0.1 * 5 / std::sqrt(20000.0));
  EXPECT_NEAR(std::sqrt(u2), 0.25 / std::sqrt(3.0), 0.25 * 5 / std::sqrt(20000.0));
  for (int i = 0; i < 7; ++i) EXPECT_EQ(one.value.data<float>()[i], 1.0f);
}

TEST(ParamStore, BfloatMatricesOnly) {
  ParamStore store({.compute = DType::bf16});
  const Param& w = store.add({.name = "w", .global_shape = {3, 5}, .init = Init::normal(1.0)});
  const Param& b = store.add({.name = "b", .global_shape = {5}, .init = Init::normal(1.0), .matrix = false});
  store.finalize();
  EXPECT_EQ(w.value.dtype(), DType::bf16);
  EXPECT_EQ(w.grad.dtype(), DType::f32);
  EXPECT_EQ(b.value.dtype(), DType::f32);
  ParamStore exact({});
  const Param& master = exact.add({.name = "w", .global_shape = {3, 5}, .init = Init::normal(1.0)});
  exact.finalize();
  for (int i = 0; i < 15; ++i)
    EXPECT_EQ(w.value.data<bf16>()[i].bits, bf16(master.value.data<float>()[i]).bits);
}

TEST(ParamStore, RanksOwnEqualRangesThatTogetherAreAll) {
  run_on_threads(4, [](Communicator& world) {
    const ProcessGroups groups(world, ParallelPlan(4, {2, 4}));
    ParamStore store({});
    store.add({.name = "a", .global_shape = {7, 40}, .init = Init::normal(1)});
    store.add({.name = "b", .global_shape = {3}, .init = Init::ones(), .matrix = false});
    for (const int ep : {2, 4}) {
      ParamSpec spec = experts(groups.ep(ep).rank() * 4 / ep, (groups.ep(ep).rank() + 1) * 4 / ep, ep);
      spec.name = fmt::format("experts {}", ep);
      store.add(spec);
    }
    store.shard(groups);
    store.finalize();
    for (const ParamGroup& g : store.groups()) {
      EXPECT_EQ(g.owned.size() * replicas(g, groups).size(), g.numel);
      EXPECT_EQ(g.owned.begin, g.owned.size() * replicas(g, groups).rank());
      EXPECT_EQ(g.sharded(), g.expert_parallel != 4) << "nobody else has those experts";
    }
    for (const ParamEntry& entry : store.entries()) {
      double owned = static_cast<double>(store.owned(entry).size());
      Stream stream;
      replicas(store.group_of(entry), groups)
          .all_reduce(Tensor(&owned, DType::f64, {1}), ReduceOp::sum, ReduceOrder::any, stream)
          .wait();
      EXPECT_EQ(owned, static_cast<double>(entry.numel)) << entry.spec.name;
    }
    EXPECT_THROW(store.shard(groups), Error);
  });
}

TEST(ParamStore, Misuse) {
  ParamStore store({});
  store.add({.name = "w", .global_shape = {2}, .init = Init::zeros()});
  EXPECT_THROW(store.add({.name = "w", .global_shape = {2}, .init = Init::zeros()}), Error);
  store.finalize();
  EXPECT_THROW(store.add({.name = "late", .global_shape = {2}, .init = Init::zeros()}), Error);
  EXPECT_THROW(store.find("absent"), Error);
}

TEST(ParamStoreMisuse, RowsWhoseColumnsRanksShareHaveNoScale) {
  const Shape whole{4, 8};
  ParamStore rows({.trainable = false}), columns({.trainable = false});
  rows.add({.name = "w",
            .global_shape = whole,
            .init = Init::ones(),
            .product = true,
            .cut = cut_rows(whole, {4}, 1, 2)});
  columns.add({.name = "w",
               .global_shape = whole,
               .init = Init::ones(),
               .product = true,
               .cut = cut_columns(whole, 1, 2)});
  rows.finalize();
  columns.finalize();
  rows.to_int8_panels();
  EXPECT_TRUE(rows.find("w").param.int8);
  EXPECT_THROW(columns.to_int8_panels(), Error);
}

}  // namespace
}  // namespace ziggurat::nn
