// From gradients to weights on any number of ranks, whoever updates what.
#include <map>
#include <mutex>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/optim/optimizer.h>
#include <ziggurat/parallel/gradient_reducer.h>

namespace ziggurat::test {
namespace {

constexpr int64_t kLanes = 4, kExperts = 4;

struct Layout {
  int ranks = 1, ep = 1;
  bool shares = false;
};

// After three steps: what ranks hold, by name and element of the global tensor; and the norms.
struct Result {
  std::map<std::string, std::vector<double>> values;
  std::vector<double> norms;  // of each step: of all, and then of each clip group
  bool operator==(const Result&) const = default;
};

Result train(const Layout& layout, DType compute, Reproducible mode, const OptimizerConfig& config) {
  Result result;
  std::mutex mutex;
  run_on_threads(layout.ranks, [&](Communicator& world) {
    const ProcessGroups groups(world, ParallelPlan(layout.ranks, {layout.ep}));
    nn::ParamStore store({.compute = compute, .reproducible = mode});
    const int64_t held = kExperts / layout.ep, begin = held * groups.ep(layout.ep).rank();
    store.add({.name = "matrix", .global_shape = {5, 70}, .init = nn::Init::normal(1)});
    store.add(
        {.name = "norm", .global_shape = {33}, .init = nn::Init::ones(), .matrix = false, .decay = false});
    store.add({.name = "experts",
               .global_shape = {kExperts, 9, 5},
               .init = nn::Init::normal(1),
               .row_begin = begin,
               .row_end = begin + held,
               .expert_parallel = layout.ep});
    store.add({.name = "last", .global_shape = {3, 3}, .init = nn::Init::uniform(1)});
    if (layout.shares) store.shard(groups);
    store.finalize();
    const int64_t lanes = kLanes / layout.ranks;
    Optimizer optimizer(store, groups, config);
    parallel::GradientReducer reducer(store, groups, mode == Reproducible::strict ? lanes : 1,
                                      optimizer.clip_groups());
    Arena workspace("workspace", 1 << 24);
    Stream stream(Device::cpu, mode);
    for (int64_t step = 0; step < 3; ++step) {
      reducer.begin_step(stream);
      for (int64_t l = 0; l < lanes; ++l) {
        for (const nn::ParamEntry& entry : store.entries()) {
          // Experts get gradients of every rank of their group, in strict mode apart.
          const bool expert = entry.spec.expert_parallel > 0;
          for (int source = 0; source < (expert ? layout.ep : 1); ++source) {
            const int rank = expert ? world.rank() / layout.ep * layout.ep + source : world.rank();
            const Philox rng(1, Purpose::test, hash_name(entry.spec.name),
                             static_cast<uint64_t>(step * kLanes + rank * lanes + l));
            float* const grad = entry.param.grad_of_source(source).data<float>();
            for (int64_t i = 0; i < entry.numel; ++i) {
              grad[i] += static_cast<float>(rng.normal(static_cast<uint64_t>(entry.first + i)));
            }
          }
        }
        if (mode == Reproducible::strict) reducer.end_lane(stream);
      }
      reducer.reduce(stream);
      const Tensor clipped = optimizer.update(0.01, reducer.squared_norms(stream), {}, workspace, stream);
      const std::lock_guard lock(mutex);
      for (int64_t i = 0; world.rank() == 0 && i < clipped.numel(); i += 2) {
        result.norms.push_back(clipped.data<double>()[i]);
      }
    }
    const std::lock_guard lock(mutex);
    const auto collect = [&](const std::string& name, const nn::ParamEntry& entry, int64_t first,
                             const Tensor& tensor) {
      auto& all = result.values.try_emplace(name, entry.spec.global_shape.numel(), NAN).first->second;
      const std::vector<double> here = to_doubles(tensor);
      for (size_t i = 0; i < here.size(); ++i) {
        double& there = all.at(static_cast<size_t>(first) + i);
        EXPECT_TRUE(std::isnan(there) || there == here[i]) << "on two ranks: " << name << i;
        there = here[i];
      }
    };
    const OptimizerState& state = optimizer.state();
    for (const nn::ParamEntry& entry : store.entries()) {
      const int64_t owned = entry.first + store.owned(entry).begin;
      collect(entry.spec.name, entry, entry.first, entry.param.value);
      collect("master of " + entry.spec.name, entry, owned, state.master(entry));
      collect("m of " + entry.spec.name, entry, owned, state.moment(entry, 0));
      collect("v of " + entry.spec.name, entry, owned, state.moment(entry, 1));
    }
  });
  for (const auto& [name, values] : result.values) {
    EXPECT_THAT(values, testing::Each(testing::Not(testing::IsNan()))) << name << ": nobody owns it";
  }
  return result;
}

std::vector<OptimizerConfig> configs() {
  OptimizerConfig exact;
  exact.clip_grad = 20;
  std::vector<OptimizerConfig> all = {exact, exact, exact, exact};
  all[1].moments = StateDtype::bf16;
  all[2].moments = all[2].masters = StateDtype::bf16;
  all[3].clip_groups = {{"experts", "expert*", 5},
                        {"ends", "[ml]a*t*", 0}};  // matrix and last, apart in the slab
  return all;
}

const std::vector<Layout> kLayouts = {{1, 1, true}, {2, 1},       {2, 1, true}, {2, 2, true}, {4, 1, true},
                                      {4, 2},       {4, 2, true}, {4, 4, true}, {4, 4}};

TEST(Optimizer, StrictBitsAreTheSameWhoeverUpdatesWhat) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    for (const OptimizerConfig& config : configs()) {
      const Result alone = train({}, compute, Reproducible::strict, config);
      EXPECT_GT(alone.norms.front(), config.clip_grad) << "it is clipped";
      for (const Layout& l : kLayouts) {
        EXPECT_TRUE(train(l, compute, Reproducible::strict, config) == alone)
            << l.ranks << " ranks, ep " << l.ep << (l.shares ? ", shared" : "") << ", " << to_string(compute);
      }
    }
  }
}

TEST(Optimizer, LayoutModeIsTheSameToRounding) {
  for (const OptimizerConfig& config : {configs().front(), configs().back()}) {
    const Result alone = train({}, DType::f32, Reproducible::layout, config);
    for (const Layout& l : kLayouts) {
      const Result got = train(l, DType::f32, Reproducible::layout, config);
      for (size_t i = 0; i < alone.norms.size(); ++i)
        EXPECT_NEAR(got.norms[i], alone.norms[i], 1e-5 * alone.norms[i]);
      for (const auto& [name, values] : alone.values) {
        // Three steps of lr whose direction is right to rounding, but where a gradient cancels to nothing.
        expect_within(got.values.at(name), values, 1e-3, name);
      }
    }
  }
}

TEST(OptimizerState, KeepsAShareAndNoMastersBesideExactValues) {
  run_on_threads(2, [](Communicator& world) {
    const ProcessGroups groups(world, ParallelPlan(2, {}));
    for (const DType compute : {DType::f32, DType::bf16}) {
      nn::ParamStore store({.compute = compute});
      store.add({.name = "matrix", .global_shape = {16, 64}, .init = nn::Init::normal(1)});
      store.shard(groups);
      store.finalize();
      const auto keep = [](std::vector<MomentSpec> moments) {
        return [=](const nn::ParamSpec&) { return moments; };
      };
      const OptimizerState exact(store, groups, {keep({{"m"}, {"v"}, {"third"}})});
      EXPECT_EQ(exact.bytes_of_masters(), compute == DType::bf16 ? 512 * 4 : 0);
      EXPECT_EQ(exact.bytes_of_moments(), 3 * 512 * 4);
      const OptimizerState rounded(store, groups, {keep({{"m"}}), true, true});
      EXPECT_EQ(rounded.bytes_of_masters(), 0);
      EXPECT_EQ(rounded.bytes_of_moments(), 512 * 2);
      // Masters start as what values are rounded from.
      const nn::ParamEntry& entry = store.find("matrix");
      const std::vector<double> masters = to_doubles(exact.master(entry)),
                                values = to_doubles(entry.param.value);
      const auto first = static_cast<size_t>(store.owned(entry).begin);
      for (size_t i = 0; i < masters.size(); ++i) {
        const float master = static_cast<float>(masters[i]);
        EXPECT_EQ(values[first + i], compute == DType::bf16
                                         ? static_cast<double>(static_cast<float>(bf16(master)))
                                         : masters[i]);
      }
    }
  });
}

}  // namespace
}  // namespace ziggurat::test
