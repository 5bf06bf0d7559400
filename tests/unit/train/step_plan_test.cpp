#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/config/config.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ziggurat::testing::error_of;

RunConfig run_of(int64_t micro_batch, int64_t global_batch) {
  RunConfig c;
  c.batch.sequence_length = 10;
  c.batch.micro_batch = micro_batch;
  c.batch.global_batch = global_batch;
  c.train.tokens = 10'000;
  c.optimizer.lr = 1.0;
  c.optimizer.warmup_tokens = 1'000;
  c.optimizer.decay_tokens = 10'000;
  return c;
}

TEST(StepPlan, SharesTheBatch) {
  const StepPlan plan = plan_step(run_of(4, 64), 2, 32);
  EXPECT_EQ(plan.first_sample, 32);
  EXPECT_EQ(plan.samples, 64);
  EXPECT_EQ(plan.micro_batches, 16);
  EXPECT_EQ(plan.micro_batches_per_rank, 8);
  EXPECT_EQ(plan.lanes_per_rank, 1);
  EXPECT_EQ(plan.tokens, 640);
  EXPECT_DOUBLE_EQ(plan.lr, 0.32);  // 320 of 1000 tokens of the warm-up
}

TEST(StepPlan, BatchRampsUp) {
  RunConfig c = run_of(2, 16);
  c.batch.rampup = {.start = 4, .increment = 4, .samples = 30};
  EXPECT_EQ(plan_step(c, 1, 0).samples, 4);
  EXPECT_EQ(plan_step(c, 1, 9).samples, 4);
  EXPECT_EQ(plan_step(c, 1, 10).samples, 8);
  EXPECT_EQ(plan_step(c, 1, 20).samples, 12);
  EXPECT_EQ(plan_step(c, 1, 30).samples, 16);
  // 4 4 4 | 8 8 | 12 -> 40, then 16s: 960 samples are left of the 1000.
  EXPECT_EQ(total_steps(c), 3 + 2 + 1 + 60);
}

TEST(StepPlan, StrictLanesDoNotDependOnTheRanks) {
  RunConfig c = run_of(2, 64);
  c.reproducible = Reproducible::strict;
  EXPECT_EQ(strict_lanes(c), 8);
  for (const int ranks : {1, 2, 4, 8}) EXPECT_EQ(plan_step(c, ranks, 0).lanes_per_rank, 8 / ranks);
  c.batch.global_batch = 24;  // 12 micro-batches
  EXPECT_EQ(strict_lanes(c), 4);
  c.batch.rampup = {.start = 8, .increment = 4, .samples = 100};  // 4, 6, 8 ... micro-batches
  EXPECT_EQ(strict_lanes(c), 2);
  c.batch.lanes = 1;
  EXPECT_EQ(strict_lanes(c), 1);
}

TEST(CheckForRanks, TellsWhatToChange) {
  const auto message = [](const RunConfig& c, int ranks) {
    return error_of(ErrorKind::config, [&] { check_for_ranks(c, ranks); });
  };
  RunConfig c = run_of(4, 24);
  EXPECT_NO_THROW(check_for_ranks(c, 2));
  EXPECT_THAT(message(c, 4), AllOf(HasSubstr("batch.global_batch: 24 sequences cannot be shared by 4 ranks"),
                                   HasSubstr("expected a multiple of 16")));

  c.reproducible = Reproducible::strict;  // 6 micro-batches: 2 lanes
  EXPECT_THAT(message(c, 3), HasSubstr("needs a power-of-two number of ranks, got 3: start 2 or 4"));
  c.batch.lanes = 4;
  EXPECT_THAT(message(c, 2), HasSubstr("batch.lanes: 6 micro-batches of a step cannot be cut into 4 lanes"));
  c = run_of(2, 64);
  c.reproducible = Reproducible::strict;
  EXPECT_THAT(message(c, 16), HasSubstr("8 lanes are too few for 16 ranks"));
}

TEST(CheckForRanks, LooksAtEveryBatchOfTheRampUp) {
  RunConfig c = run_of(4, 32);
  c.batch.rampup = {.start = 8, .increment = 4, .samples = 100};
  EXPECT_NO_THROW(check_for_ranks(c, 1));
  // 8 and 32 could be shared by 2 ranks; the second step's 12 could not.
  const std::string message = error_of(ErrorKind::config, [&] { check_for_ranks(c, 2); });
  EXPECT_THAT(message, HasSubstr("batch.rampup.increment: 12 sequences cannot be shared by 2 ranks"));
  c.batch.rampup.start = 4;
  EXPECT_THAT(error_of(ErrorKind::config, [&] { check_for_ranks(c, 2); }),
              HasSubstr("batch.rampup.start: 4 sequences cannot be shared by 2 ranks"));
  c.batch.rampup.increment = 5;
  EXPECT_THAT(error_of(ErrorKind::config, [&] { check_for_ranks(c, 1); }), HasSubstr("batch ramp-up"));
}

TEST(RunConfig, EveryMistakeIsTold) {
  const auto message = [](const RunConfig& c) {
    Problems problems;
    c.validate(problems);
    return error_of(ErrorKind::config, [&] { problems.throw_if_any(); });
  };
  RunConfig c = run_of(4, 30);
  c.batch.sequence_length = 4096;
  c.batch.lanes = 3;
  c.reproducible = Reproducible::strict;
  c.model.moe.balance_scope = moe::BalanceScope::global_batch;
  c.model.blocks = {{1, {{model::FfnKind::moe, 4}}}};
  EXPECT_THAT(message(c),
              AllOf(HasSubstr("batch.sequence_length: expected at most model.max_sequence (2048)"),
                    HasSubstr("batch.global_batch: expected a multiple of batch.micro_batch (4)"),
                    HasSubstr("batch.lanes: expected a power of two, got 3"),
                    HasSubstr("model.moe.balance_scope: global_batch depends on the number")));
  Problems none;
  run_of(4, 32).validate(none);
  EXPECT_EQ(none.count(), 0u);
}

TEST(StepPlan, TheEndCountsWhatWasConsumed) {
  RunConfig c = run_of(4, 64);  // 10,000 tokens are 1,000 samples
  EXPECT_EQ(steps_left(c, 0), 16);
  EXPECT_EQ(steps_left(c, 500), 8);
  EXPECT_EQ(samples_of_run(c, 500), 500 + 8 * 64);
  EXPECT_EQ(steps_left(c, 999), 1);
  EXPECT_EQ(steps_left(c, 1000), 0);
  EXPECT_EQ(steps_left(c, 5000), 0);
  EXPECT_EQ(samples_of_run(c, 5000), 5000);
}

// Step by step as a run goes, from anywhere in the ramp-up.
TEST(StepPlan, TheStepsLeftAreThoseTheRunTakes) {
  RunConfig c = run_of(2, 16);
  c.batch.rampup = {.start = 4, .increment = 4, .samples = 90};
  for (const int64_t begun : {0, 3, 29, 30, 31, 60, 89, 90, 91, 500, 999}) {
    int64_t samples = begun, steps = 0;
    while (samples * c.batch.sequence_length < c.train.tokens)
      samples += plan_step(c, 1, samples).samples, ++steps;
    EXPECT_EQ(steps_left(c, begun), steps) << begun;
    EXPECT_EQ(samples_of_run(c, begun), samples) << begun;
  }
}

}  // namespace
}  // namespace ziggurat::train
