// From gradients to weights on the emulated device: what reducer and optimizer make of the CPU's gradients.
#include <cmath>
#include <map>
#include <mutex>

#include "tests/emulation/emulated_test.h"
#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/optim/optimizer.h>
#include <ziggurat/parallel/gradient_reducer.h>

namespace ziggurat::emulation {
namespace {

constexpr int64_t kLanes = 2, kMicroBatches = 4;  // of a rank

// A rank's parameters: replicated ones, and experts shared by all ranks.
class Rank {
 public:
  Rank(Communicator& world, Device device, DType compute, Reproducible mode, bool shares = false,
       OptimizerConfig config = {})
      : groups_(world, ParallelPlan(world.size(), {world.size()})),
        store_({.compute = compute, .device = device, .reproducible = mode}),
        workspace_("workspace", 1 << 20, device),
        stream_(device, mode) {
    const int64_t held = 4 / world.size(), begin = held * world.rank();
    store_.add({.name = "matrix", .global_shape = {30, 70}, .init = nn::Init::normal(1), .product = true});
    store_.add(
        {.name = "norm", .global_shape = {70}, .init = nn::Init::ones(), .matrix = false, .decay = false});
    store_.add({.name = "experts",
                .global_shape = {4, 9, 5},
                .init = nn::Init::normal(1),
                .row_begin = begin,
                .row_end = begin + held,
                .expert_parallel = world.size()});
    if (shares) store_.shard(groups_);
    store_.finalize();
    config.clip_grad = 10;
    optimizer_ = std::make_unique<Optimizer>(store_, groups_, config);
    reducer_ = std::make_unique<parallel::GradientReducer>(
        store_, groups_, mode == Reproducible::strict ? kLanes : 1, optimizer_->clip_groups());
  }

  // With gradients that are a function of rank and micro-batch, times `factor`.
  Tensor step(double factor, const Tensor& losses = {}) {
    reducer_->begin_step(stream_);
    for (int64_t m = 0; m < kMicroBatches; ++m) {
      for (nn::ParamEntry& entry : store_.entries()) {
        const Param& p = entry.param;
        p.settle_grad(stream_);
        add(p.grad, fmt::format("{} {} {}", entry.spec.name, groups_.dp().rank(), m), factor);
      }
      if (m % (kMicroBatches / kLanes) == 1) reducer_->end_lane(stream_);
    }
    reducer_->reduce(stream_);
    return optimizer_->update(0.01, reducer_->squared_norms(stream_), losses, workspace_, stream_);
  }

  std::vector<double> read(const Tensor& tensor) {
    stream_.wait();
    return test::to_doubles(tensor);
  }
  nn::ParamStore& store() { return store_; }
  const OptimizerState& state() { return optimizer_->state(); }
  Stream& stream() { return stream_; }

 private:
  // grad += values, by way of the host: how gradients come about is not what is tested.
  void add(const Tensor& grad, const std::string& name, double factor) {
    test::OpBench host;
    const Tensor sum = host.tensor(name, DType::f32, grad.shape(), factor);
    const std::vector<double> before = read(grad);
    for (int64_t i = 0; i < sum.numel(); ++i)
      sum.data<float>()[i] += static_cast<float>(before[static_cast<size_t>(i)]);
    copy(sum, grad, stream_);
    stream_.wait();
  }

  ProcessGroups groups_;
  nn::ParamStore store_;
  Arena workspace_;
  Stream stream_;
  std::unique_ptr<parallel::GradientReducer> reducer_;
  std::unique_ptr<Optimizer> optimizer_;
};

struct State {
  std::mutex mutex;
  std::map<std::string, std::vector<double>> values;  // by rank and name
};

void run(int ranks, Device device, DType compute, Reproducible mode, bool shares, State& state,
         const OptimizerConfig& config = {}) {
  const auto body = [&](Communicator& world) {
    Rank rank(world, device, compute, mode, shares, config);
    const auto put = [&](const std::string& name, const Tensor& tensor) {
      const std::vector<double> values = rank.read(tensor);
      const std::lock_guard lock(state.mutex);
      state.values[fmt::format("rank {} {}", world.rank(), name)] = values;
    };
    for (int step = 0; step < 3; ++step) {
      put(fmt::format("norm and scale {}", step), rank.step(step == 1 ? 1e-3 : 1));  // clipped, not clipped
    }
    for (const nn::ParamEntry& entry : rank.store().entries()) {
      put(entry.spec.name, rank.state().master(entry));
      put(entry.spec.name + " value", entry.param.value);
      for (const OptimizerState::Moment& moment : rank.state().moments(entry)) {
        put(entry.spec.name + " " + moment.name, moment.held);
      }
    }
  };
  run_on_threads(ranks, body);
}

class EmulatedSteps : public EmulatedTest {};

TEST_F(EmulatedSteps, EqualTheCpus) {
  for (const auto& [ranks, shares] : {std::pair{1, false}, {2, false}, {2, true}}) {
    for (const DType compute : {DType::f32, DType::bf16}) {
      for (const Reproducible mode : {Reproducible::layout, Reproducible::strict}) {
        SCOPED_TRACE(testing::Message() << ranks << " ranks, " << shares << to_string(compute));
        State want, got;
        run(ranks, Device::cpu, compute, mode, shares, want);
        run(ranks, Device::cuda, compute, mode, shares, got);
        ASSERT_EQ(got.values.size(), want.values.size());
        EXPECT_LT(want.values.at("rank 0 norm and scale 0")[1], 1) << "clipped";
        EXPECT_EQ(want.values.at("rank 0 norm and scale 1")[1], 1) << "not clipped";
        for (const auto& [name, values] : want.values) {
          // Three updates of some ten roundings in fp32; a value is rounded once more.
          const bool rounded = compute == DType::bf16 && name.ends_with("value");
          const double tolerance = (rounded ? 0x1p-8 : 32 * 0x1p-24) * std::max(1.0, test::largest(values));
          test::expect_within(got.values.at(name), values, tolerance, name);
        }
      }
    }
  }
}

// Matrices that are factored and that are too small for it, vectors, experts; and the average of each.
std::vector<OptimizerConfig> other_rules() {
  std::vector<OptimizerConfig> all;
  for (const OptimizerKind kind : {OptimizerKind::lion, OptimizerKind::muon, OptimizerKind::adafactor}) {
    OptimizerConfig config{.kind = kind};
    config.average = 0.9;
    config.weight_decay = 0.1;
    config.adafactor.least_factored = 8;
    all.push_back(config);
  }
  return all;
}

TEST_F(EmulatedSteps, OfEveryRuleEqualTheCpus) {
  for (const OptimizerConfig& config : other_rules()) {
    for (const int ranks : {1, 2}) {
      for (const DType compute : {DType::f32, DType::bf16}) {
        SCOPED_TRACE(testing::Message()
                     << static_cast<int>(config.kind) << ", " << ranks << " ranks, " << to_string(compute));
        State want, got;
        run(ranks, Device::cpu, compute, Reproducible::layout, false, want, config);
        run(ranks, Device::cuda, compute, Reproducible::layout, false, got, config);
        ASSERT_EQ(got.values.size(), want.values.size());
        EXPECT_TRUE(want.values.contains("rank 0 matrix ema.w"));
        for (const auto& [name, values] : want.values) {
          // Three updates; muon's have fifteen products, of up to 70 terms, in each.
          const bool rounded = compute == DType::bf16 && name.ends_with("value");
          const double steps = config.kind == OptimizerKind::muon ? 1024 : 64;
          const double tolerance =
              (rounded ? 0x1p-8 : steps * 0x1p-24) * std::max(1.0, test::largest(values));
          test::expect_within(got.values.at(name), values, tolerance, name);
        }
      }
    }
  }
}

TEST_F(EmulatedSteps, OfClipGroupsEqualTheCpus) {
  OptimizerConfig config;
  config.clip_groups = {{"experts", "experts", 3}, {"norm", "norm", 0}};
  for (const bool shares : {false, true}) {
    State want, got;
    run(2, Device::cpu, DType::f32, Reproducible::layout, shares, want, config);
    run(2, Device::cuda, DType::f32, Reproducible::layout, shares, got, config);
    // Norm and scale of all, of the rest and of the groups.
    const std::vector<double>& told = want.values.at("rank 0 norm and scale 0");
    ASSERT_EQ(told.size(), 8U);
    EXPECT_LT(told[3], 1);
    EXPECT_LT(told[5], 1);
    EXPECT_NE(told[5], told[3]);
    EXPECT_EQ(told[7], 1);
    for (const auto& [name, values] : want.values) {
      test::expect_within(got.values.at(name), values, 32 * 0x1p-24 * std::max(1.0, test::largest(values)),
                          name);
    }
  }
}

// One element of one rank's gradient, or a loss, that is no number: every weight and moment of every rank
// keeps its bits, and the host learns it from what the update returns.
void expect_untouched_by_what_is_not_finite(const OptimizerConfig& config) {
  run_on_threads(2, [&](Communicator& world) {
    Rank rank(world, Device::cuda, DType::bf16, Reproducible::layout, false, config);
    const auto state = [&] {
      std::vector<std::vector<double>> all;
      for (const nn::ParamGroup& g : rank.store().groups()) all.push_back(rank.read(g.values));
      for (const OptimizerState::Group& g : rank.state().groups()) all.push_back(rank.read(g.masters));
      for (const nn::ParamEntry& entry : rank.store().entries()) {
        for (const OptimizerState::Moment& moment : rank.state().moments(entry)) {
          all.push_back(rank.read(moment.held));
        }
      }
      return all;
    };
    rank.step(1);
    const auto before = state();
    const std::vector<double> bad = rank.read(rank.step(world.rank() == 1 ? std::nan("") : 1.0));
    EXPECT_FALSE(std::isfinite(bad[0]));
    EXPECT_FALSE(std::isfinite(bad[1]));
    EXPECT_TRUE(state() == before);

    test::OpBench host;
    Arena memory("losses", 64, Device::cuda);
    const Tensor losses = allocate(memory, DType::f64, {3, 1}), here = host.zeros(DType::f64, {3, 1});
    here.data<double>()[2] = HUGE_VAL;
    copy(here, losses, rank.stream());
    const std::vector<double> bad_loss = rank.read(rank.step(1, losses));
    EXPECT_TRUE(std::isfinite(bad_loss[0]));
    EXPECT_FALSE(std::isfinite(bad_loss[1]));
    EXPECT_TRUE(state() == before);

    rank.step(1);
    EXPECT_FALSE(state() == before);
  });
}

TEST_F(EmulatedSteps, WhatIsNotFiniteLeavesWeightsUntouched) {
  expect_untouched_by_what_is_not_finite({});
  for (const OptimizerConfig& config : other_rules()) {
    SCOPED_TRACE(static_cast<int>(config.kind));
    expect_untouched_by_what_is_not_finite(config);
  }
}

}  // namespace
}  // namespace ziggurat::emulation
