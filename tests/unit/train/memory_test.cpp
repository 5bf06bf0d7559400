// The plan foretells what a step takes, and a step takes nothing that an earlier one had not.
#include <cmath>

#include <gtest/gtest.h>

#include "tests/support/allocation_counter.h"
#include "tests/support/tiny_run.h"
#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/thread.h>

namespace ziggurat {
namespace {

using train::Trainer;
using ziggurat::testing::TempDir;

train::Executor::Memory after_steps(const train::RunConfig& config, int ranks, int64_t steps) {
  train::Executor::Memory result;
  run_on_threads(ranks, [&](Communicator& world) {
    Trainer trainer(config, world);
    for (int64_t i = 0; i < steps; ++i) trainer.step();
    if (world.rank() == 0) result = trainer.high_water();
  });
  return result;
}

TEST(Memory, ThePlanOfADenseModelIsTheAllocation) {
  const TempDir folder;
  for (const auto precision : {train::Precision::fp32, train::Precision::bf16}) {
    for (const bool recompute : {false, true}) {
      for (const auto mode : {Reproducible::layout, Reproducible::strict}) {
        train::RunConfig config = test::small_dense(folder.path());
        config.precision = precision;
        config.train.recompute = recompute;
        config.reproducible = mode;
        const train::MemoryPlan plan = test::plan_on_threads(config, 1);
        const train::Executor::Memory real = after_steps(config, 1, 1);
        EXPECT_EQ(plan.activations, real.activations);
        EXPECT_EQ(plan.activation_gradients, real.activation_gradients);
        EXPECT_EQ(plan.workspace, real.workspace);
      }
    }
  }
}

// Ranks that share the optimizer state keep what the plan says of it: a share, and a little for equal shares.
TEST(Memory, ThePlanKnowsWhoKeepsWhatOfTheOptimizerState) {
  const TempDir folder;
  train::RunConfig config = test::small_dense(folder.path());
  for (const auto precision : {train::Precision::fp32, train::Precision::bf16}) {
    config.precision = precision;
    config.parallel.zero = 0;
    const train::MemoryPlan whole = test::plan_on_threads(config, 4);
    config.parallel.zero = 1;
    const train::MemoryPlan shared = test::plan_on_threads(config, 4);
    constexpr int64_t kPadding = 2 * 4 * 64 * 4;  // bytes: two groups, 64 elements of 4 bytes a rank
    int64_t moments = 0;
    for (int rank = 0; rank < 4; ++rank) moments += train::plan_memory(config, 4, rank).moments;
    EXPECT_EQ(moments, whole.moments);
    EXPECT_LE(shared.moments, whole.moments / 4 + 2 * kPadding);
    EXPECT_EQ(whole.masters > 0, precision == train::Precision::bf16);
    EXPECT_LE(shared.masters, whole.masters / 4 + kPadding);
    EXPECT_LE(shared.gradients, whole.gradients + kPadding);
    run_on_threads(4, [&](Communicator& world) {
      Trainer trainer(config, world);
      const train::MemoryPlan mine = train::plan_memory(config, 4, world.rank());
      EXPECT_EQ(trainer.optimizer_state().bytes_of_masters(), mine.masters);
      EXPECT_EQ(trainer.optimizer_state().bytes_of_moments(), mine.moments);
      int64_t values = 0, gradients = 0;
      for (const nn::ParamGroup& g : trainer.params().groups()) {
        values += g.values.bytes(), gradients += g.gradient.bytes();
      }
      EXPECT_EQ(values, shared.values);
      EXPECT_EQ(gradients, shared.gradients);
    });
  }
}

// ZeRO-2: between micro-batches a share of the gradients, and during one the groups that backward is at.
TEST(Memory, ThePlanKnowsWhoKeepsWhatOfTheGradients) {
  const TempDir folder;
  train::RunConfig config = test::small_dense(folder.path());
  config.model.blocks = {{.repeat = 8, .pattern = {{}}}};
  config.parallel.bucket = 20'000;
  config.parallel.zero = 1;
  const train::MemoryPlan whole = test::plan_on_threads(config, 4);
  config.parallel.zero = 2;
  const train::MemoryPlan shared = test::plan_on_threads(config, 4);
  EXPECT_EQ(shared.values, whole.values);
  EXPECT_EQ(shared.moments, whole.moments);
  run_on_threads(4, [&](Communicator& world) {
    Trainer trainer(config, world);
    for (int i = 0; i < 2; ++i) trainer.step();
    int64_t kept = 0;
    for (const nn::ParamGroup& g : trainer.params().groups()) kept += g.gradient.bytes();
    EXPECT_EQ(kept, whole.gradients / 4);
    EXPECT_LT(shared.gradients, whole.gradients / 2);
    EXPECT_EQ(kept + trainer.lent_gradient_bytes(), shared.gradients);
  });
}

// With capacity factor 1 no expert gets more than its share, so the plan is a limit, and not far from the
// truth.
TEST(Memory, ThePlanOfAMoeModelIsALimitWhileCapacityBinds) {
  const TempDir folder;
  for (const int ranks : {1, 2, 4}) {
    const train::RunConfig config = test::small_pr_moe(folder.path());
    const train::MemoryPlan plan = test::plan_on_threads(config, ranks);
    const train::Executor::Memory real = after_steps(config, ranks, 3);
    EXPECT_LE(real.activations, plan.activations) << ranks << " ranks";
    EXPECT_LE(real.workspace, plan.workspace) << ranks << " ranks";
    // Experts that are far from balance (untrained, 8 tokens each) have gradients of other sizes than
    // planned, which share memory among themselves.
    EXPECT_LE(real.activation_gradients, plan.activation_gradients * 2) << ranks << " ranks";
    EXPECT_GT(real.activations, plan.activations / 2) << ranks << " ranks";
  }
}

TEST(Memory, AStepOfADenseModelTakesNoMoreThanTheFirst) {
  const TempDir folder;
  const train::RunConfig config = test::small_dense(folder.path());
  EXPECT_EQ(after_steps(config, 1, 1), after_steps(config, 1, 4));
}

// Far beyond the plan: dropless, and routers that send every token to the first expert, which one rank holds.
TEST(Memory, OneExpertMayGetEveryToken) {
  test::TinyRunOptions options;
  options.model.vocab_size = 64;
  options.model.max_sequence = options.length = 512;
  options.model.hidden = 64;
  options.model.heads = 4;
  options.model.moe.drop = moe::DropPolicy::none;
  options.model.moe.balance_coefficient = 0;
  options.model.blocks = {
      {.repeat = 1, .pattern = {{.ffn = model::FfnKind::moe, .experts = 8, .expert_parallel = 2}}}};
  options.micro_batches = 2;
  options.sequences = 16;
  std::vector<int32_t> samples(static_cast<size_t>(options.samples_per_step() * (options.length + 1)));
  for (size_t i = 0; i < samples.size(); ++i) samples[i] = static_cast<int32_t>(i * 7 % 64);
  run_on_threads(2, [&](Communicator& world) {
    test::TinyRun run(options, world);
    for (const nn::ParamEntry& entry : run.params().entries()) {
      if (entry.spec.name.find("router") != std::string::npos) fill_zero(entry.param.value);
    }
    run.params().values_changed();
    const test::TinyStep step = run.step(samples);
    EXPECT_EQ(step.dropped, 0);
    EXPECT_TRUE(std::isfinite(step.total()));
    const moe::MoeSums stats = run.moe_sums().at(0);
    EXPECT_EQ(stats.counts_before.at(0), stats.choices);
    EXPECT_GT(stats.choices, 0);
  });
}

// Allocations of one step with this many micro-batches, in steady state.
int64_t allocations(train::RunConfig config, int64_t micro_batches) {
  config.batch.global_batch = micro_batches * config.batch.micro_batch;
  int64_t result = 0;
  run_on_threads(1, [&](Communicator& world) {
    Trainer trainer(config, world);
    trainer.step();
    trainer.step();
    const int64_t before = test::allocation_count();
    trainer.step();
    result = test::allocation_count() - before;
  });
  return result;
}

// Counted are calls of operator new, in any thread. Planning, reporting and the squared norm of a step may
// allocate (lists of a few numbers), forward and backward may not: so micro-batches cost none.
TEST(Memory, AMicroBatchAllocatesNothing) {
  const TempDir folder;
  for (const auto precision : {train::Precision::fp32, train::Precision::bf16}) {
    for (train::RunConfig config : {test::small_dense(folder.path()), test::small_pr_moe(folder.path())}) {
      config.precision = precision;
      EXPECT_EQ(allocations(config, 2), allocations(config, 6)) << config.model.blocks.size();
    }
  }
}

TEST(Memory, TheCounterCounts) {
  const int64_t before = test::allocation_count();
  const auto something = std::make_unique<int>(1);
  EXPECT_EQ(test::allocation_count(), before + 1);
}

}  // namespace
}  // namespace ziggurat
