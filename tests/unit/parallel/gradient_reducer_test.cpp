#include <cmath>
#include <functional>
#include <mutex>
#include <numeric>

#include <gtest/gtest.h>

#include <ziggurat/comm/thread.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/parallel/gradient_reducer.h>

namespace ziggurat::parallel {
namespace {

constexpr int64_t kLanes = 8, kSize = 70, kExperts = 4;

// Values of all magnitudes, so that another order of additions gives other bits.
float lane_value(uint64_t name, int64_t lane, int64_t element) {
  const Philox rng(5, Purpose::test, name, static_cast<uint64_t>(lane));
  const double scale = std::exp(6 * rng.normal(static_cast<uint64_t>(element + 1000)));
  return static_cast<float>(scale * rng.normal(static_cast<uint64_t>(element)));
}

// ((0+1)+(2+3)) + ((4+5)+(6+7)), each addition rounded to f32.
float tree(const std::function<float(int64_t)>& value, int64_t first, int64_t lanes) {
  if (lanes == 1) return value(first);
  return tree(value, first, lanes / 2) + tree(value, first + lanes / 2, lanes / 2);
}

double sum(const Tensor& values) {
  return std::accumulate(values.data<double>(), values.data<double>() + values.numel(), 0.0);
}

struct Reduced {
  std::mutex mutex;
  std::vector<float> dense = std::vector<float>(kSize), experts = std::vector<float>(kExperts * kSize);
  std::vector<double> norms;
};

// A replicated parameter and experts shared by `ep` ranks. Each lane adds its values; an expert's rows come
// from every rank of its group.
void reduce_on(int ranks, int ep, Reduced& out) {
  run_on_threads(ranks, [&](Communicator& world) {
    const ProcessGroups groups(world, ParallelPlan(ranks, {ep}));
    nn::ParamStore store({.reproducible = Reproducible::strict});
    Param& dense = store.add({.name = "dense", .global_shape = {kSize}, .init = {}});
    const int64_t held = kExperts / ep, begin = groups.ep(ep).rank() * held;
    Param& experts = store.add({.name = "experts",
                                .global_shape = {kExperts, kSize},
                                .init = {},
                                .row_begin = begin,
                                .row_end = begin + held,
                                .expert_parallel = ep});
    store.finalize();
    const int64_t mine = kLanes / ranks;
    GradientReducer reducer(store, groups, mine);
    Stream stream(Device::cpu, Reproducible::strict);
    const int64_t first_rank = world.rank() / ep * ep;
    for (int step = 0; step < 2; ++step) {  // the second must not see the first
      reducer.begin_step(stream);
      for (int64_t l = 0; l < mine; ++l) {
        const int64_t lane = world.rank() * mine + l;
        for (int64_t i = 0; i < kSize; ++i) dense.grad.data<float>()[i] += lane_value(0, lane, i);
        for (int64_t source = 0; source < ep; ++source) {
          const int64_t from = (first_rank + source) * mine + l;
          float* grads = experts.grad_of_source(source).data<float>();
          for (int64_t i = 0; i < held * kSize; ++i) {
            grads[i] += lane_value(static_cast<uint64_t>(1 + begin + i / kSize), from, i % kSize);
          }
        }
        reducer.end_lane(stream);
      }
      reducer.reduce(stream);
    }
    const double norm = sum(reducer.squared_norms(stream));
    const std::lock_guard lock(out.mutex);
    out.norms.push_back(norm);
    std::copy_n(dense.grad.data<float>(), kSize, out.dense.begin());
    std::copy_n(experts.grad.data<float>(), held * kSize, out.experts.begin() + begin * kSize);
  });
}

TEST(GradientReducer, LanesAreOneBinaryTreeOnAnyLayout) {
  double exact = 0, in_order_differs = 0;
  std::vector<float> dense, experts;
  const auto append = [&](std::vector<float>& to, uint64_t name) {
    for (int64_t i = 0; i < kSize; ++i) {
      const auto value = [&](int64_t lane) { return lane_value(name, lane, i); };
      to.push_back(tree(value, 0, kLanes));
      exact += static_cast<double>(to.back()) * to.back();
      float in_order = 0;
      for (int64_t lane = 0; lane < kLanes; ++lane) in_order += value(lane);
      in_order_differs += in_order != to.back();
    }
  };
  append(dense, 0);
  for (uint64_t e = 0; e < kExperts; ++e) append(experts, 1 + e);
  EXPECT_GT(in_order_differs, kSize);  // the order matters for these values

  std::vector<double> norms;
  for (const auto& [ranks, ep] :
       std::vector<std::pair<int, int>>{{1, 1}, {2, 1}, {2, 2}, {4, 2}, {4, 4}, {8, 4}}) {
    Reduced reduced;
    reduce_on(ranks, ep, reduced);
    EXPECT_EQ(reduced.dense, dense) << ranks << " ranks, ep " << ep;
    EXPECT_EQ(reduced.experts, experts) << ranks << " ranks, ep " << ep;
    norms.insert(norms.end(), reduced.norms.begin(), reduced.norms.end());
  }
  // Each parameter once, on every rank, the same bits everywhere.
  for (const double norm : norms) EXPECT_EQ(norm, norms.front());
  EXPECT_NEAR(norms.front(), exact, exact * 1e-6);
}

TEST(GradientReducer, LayoutModeSumsOverTheRanksThatHoldAParameter) {
  run_on_threads(4, [](Communicator& world) {
    const ProcessGroups groups(world, ParallelPlan(4, {2}));
    nn::ParamStore store({});
    Param& dense = store.add({.name = "dense", .global_shape = {3}, .init = {}});
    const int64_t begin = groups.ep(2).rank();
    Param& experts = store.add({.name = "experts",
                                .global_shape = {2, 3},
                                .init = {},
                                .row_begin = begin,
                                .row_end = begin + 1,
                                .expert_parallel = 2});
    store.finalize();
    GradientReducer reducer(store, groups, 1);
    Stream stream;
    reducer.begin_step(stream);
    for (int64_t i = 0; i < 3; ++i) {
      dense.grad.data<float>()[i] = static_cast<float>(1 + world.rank());
      experts.grad.data<float>()[i] = static_cast<float>(10 * (1 + world.rank()));
    }
    reducer.reduce(stream);
    for (int64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(dense.grad.data<float>()[i], 1 + 2 + 3 + 4);
      // expert 0 lives on ranks 0 and 2, expert 1 on ranks 1 and 3
      EXPECT_EQ(experts.grad.data<float>()[i], begin == 0 ? 10 + 30 : 20 + 40);
    }
    EXPECT_EQ(sum(reducer.squared_norms(stream)), 3 * (10.0 * 10 + 40 * 40 + 60 * 60));
  });
}

TEST(GradientReducer, WantsAPowerOfTwoOfLanes) {
  const auto self = make_self_communicator();
  const ProcessGroups groups(*self, ParallelPlan(1, {}));
  nn::ParamStore store({});
  store.add({.name = "w", .global_shape = {3}, .init = {}});
  store.finalize();
  EXPECT_THROW(GradientReducer(store, groups, 3), Error);
  EXPECT_THROW(GradientReducer(store, groups, 0), Error);
}

}  // namespace
}  // namespace ziggurat::parallel
