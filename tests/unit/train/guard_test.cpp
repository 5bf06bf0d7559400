// Numbers that cannot be right, and what a run makes of them. Faults are injected (core/injection.h).
#include <filesystem>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/core/injection.h>
#include <ziggurat/train/recomputation.h>

namespace ziggurat::train {
namespace {

using test::expect_same_bits;
using test::expect_same_run;
using test::small_pr_moe;
using test::train_on_threads;
using test::TrainingRun;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ziggurat::testing::error_of;
using ziggurat::testing::read_text;
using ziggurat::testing::TempDir;

class GuardTest : public ::testing::Test {
 protected:
  GuardTest() : config_(small_pr_moe(folder_ / "run", 1)) {}
  void TearDown() override { inject(""); }

  TrainingRun run(int64_t steps, const std::string& faults, int ranks = 2) const {
    inject(faults);
    return train_on_threads(config_, ranks, steps);
  }
  std::string refused(const std::string& faults, int ranks = 2) const {
    return error_of(ErrorKind::numeric, [&] { run(3, faults, ranks); });
  }
  // Steps whose update was left out.
  static std::vector<int64_t> left_out(const TrainingRun& run) {
    std::vector<int64_t> steps;
    for (const StepRecord& step : run.steps) {
      if (!step.left_out.empty()) steps.push_back(step.step);
    }
    return steps;
  }
  static void expect_same_state(const TrainingRun& got, const TrainingRun& want) {
    expect_same_bits(got.weights, want.weights, "weights");
    expect_same_bits(got.moments, want.moments, "moments");
  }

  TempDir folder_;
  RunConfig config_;
};

TEST_F(GuardTest, NamesWhatIsNotFiniteWhereItBegins) {
  // 8 micro-batches on 2 ranks: rank 1 has 4 to 7.
  EXPECT_THAT(refused("loss:nan:rank=1:step=2"),
              AllOf(HasSubstr("step 2: the loss of micro-batch 4 on rank 1 is not finite"),
                    HasSubstr("computed again all is finite")));
  EXPECT_THAT(
      refused("gradient:inf:rank=1:step=3:times=0:tensor=blocks.2.attention.out.weight:element=7"),
      AllOf(HasSubstr("step 3: the gradient of blocks.2.attention.out.weight, element 7 is not finite"),
            HasSubstr("it begins with the gradient of blocks.2.attention.out.weight, element 7 in "
                      "micro-batch 7 on rank 1")));
  EXPECT_THAT(
      refused(fmt::format("gradient:nan:rank=0:step=1:tensor=blocks.3.moe.experts.up.weight:element={}",
                          3 * 128 * 32 + 5)),
      AllOf(HasSubstr("the gradient of blocks.3.moe.experts.up.weight, expert 3, element 5 is not"),
            HasSubstr("computed again all is finite: a fault of a machine that has passed")));
  EXPECT_THAT(refused("master:nan:rank=0:step=2:tensor=blocks.1.norm2.weight:element=3"),
              AllOf(HasSubstr("step 2: the loss of micro-batch 0 on rank 0 is not finite"),
                    HasSubstr("neither is blocks.1.norm2.weight, weight, element 3 on rank 0")));
  config_.precision = Precision::bf16;
  EXPECT_THAT(refused("weight:nan:rank=0:step=2:tensor=blocks.1.attention.qkv.weight:element=3"),
              HasSubstr("neither is blocks.1.attention.qkv.weight, rounded weight, element 3 on rank 0"));
}

// All weights are finite here, but what comes of them is not.
TEST_F(GuardTest, FindsTheBlockWhoseOutputIsNotFinite) {
  EXPECT_THAT(refused("master:scale:by=1e38:step=2:tensor=blocks.2.norm1.weight"),
              HasSubstr("it begins with the output of block 2 in micro-batch 0 on rank 0"));
}

TEST_F(GuardTest, ASkippedUpdateLeavesEverythingAsItWas) {
  const TrainingRun two = run(2, "");
  config_.guard.non_finite = OnNonFinite::skip;
  for (const char* fault : {"loss:inf:rank=1:step=3", "gradient:nan:rank=0:step=3"}) {
    const TrainingRun skipped = run(3, fault);
    EXPECT_THAT(left_out(skipped), ElementsAre(3));
    EXPECT_EQ(skipped.steps[2].updates_left_out, 1);
    EXPECT_EQ(skipped.steps[2].samples, 48) << "its samples count as seen";
    expect_same_state(skipped, two);
  }
}

// Bias correction counts updates, not steps, before a restart and after.
TEST_F(GuardTest, ARestartKnowsOfSkippedUpdates) {
  config_.guard.non_finite = OnNonFinite::skip;
  config_.checkpoint.resume = Resume::automatic;
  inject("loss:nan:rank=1:step=2");
  const TrainingRun whole = train_on_threads(config_, 2, 4);
  inject("loss:nan:rank=1:step=2");
  train_on_threads(config_, 2, 3, [](Trainer& trainer) { trainer.save(); });
  const TrainingRun resumed = run(1, "");
  EXPECT_EQ(resumed.steps[0].step, 4);
  EXPECT_EQ(resumed.steps[0].updates_left_out, 1);
  expect_same_state(resumed, whole);
}

// Each is computed twice: to find where it begins.
TEST_F(GuardTest, TooManySkippedUpdatesInARowEndTheRun) {
  config_.guard.non_finite = OnNonFinite::skip;
  config_.guard.skip_limit = 2;
  EXPECT_EQ(left_out(run(5, "loss:nan:rank=0:step=2:times=4")), (std::vector<int64_t>{2, 3}));
  EXPECT_THAT(error_of(ErrorKind::numeric, [&] { run(5, "loss:nan:rank=0:step=2:times=6"); }),
              AllOf(HasSubstr("step 4"), HasSubstr("guard.skip_limit allows 2")));
}

TEST_F(GuardTest, ASpikeIsLeftOutOnAllRanksAndNothingElse) {
  const TrainingRun five = run(5, "");
  config_.guard.spike = OnSpike::skip;
  config_.guard.spike_window = 8;
  config_.guard.spike_sigma = 20;
  expect_same_run(run(5, ""), five, "no spike");
  for (const int ranks : {1, 2}) {
    const TrainingRun clean = run(5, "", ranks), spiked = run(6, "gradient:scale:by=50:step=6", ranks);
    EXPECT_THAT(left_out(spiked), ElementsAre(6));
    EXPECT_THAT(spiked.steps[5].left_out, AllOf(HasSubstr("gradient norm"), HasSubstr("has passed")));
    expect_same_state(spiked, clean);
  }
  EXPECT_THAT(run(6, "loss:scale:by=100:step=6:times=0").steps[5].left_out,
              AllOf(HasSubstr("the loss is"), HasSubstr("the same to the bit")));
}

// The samples from the checkpoint to the spike are passed over, whoever starts again where.
TEST_F(GuardTest, ARewindGoesOnAfterTheSpikeAndSoDoesARestart) {
  config_.guard.spike = OnSpike::rewind;
  config_.guard.spike_window = 8;
  config_.guard.spike_sigma = 20;
  config_.checkpoint.resume = Resume::automatic;
  config_.checkpoint.keep = 0;
  const auto records = [&] {
    std::vector<nlohmann::json> found;
    std::istringstream lines(read_text(folder_ / "run/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const auto json = nlohmann::json::parse(line);
      if (json.at("kind") == "rewind") found.push_back(json);
    }
    return found;
  };
  // Steps 1 to 5, saved after 3; 6 is a spike, in whose place the fourth is done with other samples.
  std::vector<StepRecord> steps;
  TrainingRun rewound;
  inject("gradient:scale:by=50:step=6");
  rewound = train_on_threads(config_, 2, 3, [&](Trainer& trainer) {
    trainer.save();
    for (int i = 0; i < 2; ++i) trainer.step();
    std::vector<StepRecord> mine = {trainer.step()};
    trainer.save();  // step 4
    mine.push_back(trainer.step());
    if (mine[0].step != 4) throw Error(ErrorKind::internal, "rewound to another step");
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    steps = mine;
  });
  EXPECT_EQ(steps[0].samples, 64);
  EXPECT_EQ(steps[0].left_out, "");
  ASSERT_EQ(records().size(), 1);
  EXPECT_EQ(records()[0].at("skipped_samples"), nlohmann::json({48, 96}));
  EXPECT_EQ(records()[0].at("from_step"), 6);
  EXPECT_EQ(records()[0].at("step"), 4);
  // A restart from the fourth step knows of it.
  const TrainingRun resumed = run(1, "");
  EXPECT_EQ(resumed.steps[0].step, 5);
  EXPECT_EQ(resumed.steps[0].loss, steps[1].loss);
  EXPECT_EQ(records().size(), 1);
  // One from the third has not met the spike.
  std::filesystem::remove_all(folder_ / "run/checkpoints/step_00000004");
  const TrainingRun again = run(1, "");
  EXPECT_EQ(again.steps[0].step, 4);
  EXPECT_NE(again.steps[0].loss, steps[0].loss);
  EXPECT_TRUE(records().empty());
}

TEST_F(GuardTest, WithoutACheckpointASpikeIsSkipped) {
  config_.guard.spike = OnSpike::rewind;
  config_.guard.spike_window = 8;
  config_.guard.spike_sigma = 20;
  const TrainingRun spiked = run(6, "gradient:scale:by=50:step=6");
  EXPECT_THAT(spiked.steps[5].left_out, HasSubstr("gradient norm"));
}

TEST_F(GuardTest, WhatRanksDisagreeAboutIsNotSaved) {
  inject("weight:flip:rank=2:step=2:tensor=blocks.0.norm1.weight");
  EXPECT_THAT(error_of(ErrorKind::numeric,
                       [&] { train_on_threads(config_, 4, 2, [](Trainer& trainer) { trainer.save(); }); }),
              AllOf(HasSubstr("step 2: no checkpoint is written"),
                    HasSubstr("blocks.0.norm1.weight, weight: rank 2 differs from ranks 0, 1, 3")));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run/checkpoints/step_00000002"));
}

TEST_F(GuardTest, GradientsComputedTwiceChangeNoBits) {
  for (const Reproducible mode : {Reproducible::layout, Reproducible::strict}) {
    for (const int ranks : {1, 2, 4}) {
      for (const int expert_parallel : {1, 2}) {
        config_ = small_pr_moe(folder_ / "run", expert_parallel);
        config_.reproducible = mode;
        const TrainingRun once = run(2, "", ranks);
        config_.guard.rerun_every = 1;
        expect_same_run(run(2, "", ranks), once, fmt::format("{} ranks", ranks));
      }
    }
  }
}

TEST_F(GuardTest, APassingFaultIsMendedAndALastingOneNamed) {
  config_.guard.rerun_every = 1;
  const TrainingRun clean = run(2, "", 4);
  const std::string flip = "gradient:flip:rank=2:step=2:bit=20:tensor=blocks.1.norm1.weight:times=";
  expect_same_run(run(2, flip + "1", 4), clean, "once");
  expect_same_run(run(2, flip + "2", 4), clean, "twice alike");
  EXPECT_THAT(refused(flip + "0", 4), AllOf(HasSubstr("step 2"), HasSubstr("lasting"),
                                            HasSubstr("rank 2 (the gradient of blocks.1.norm1.weight)")));
  EXPECT_THAT(refused("gradient:flip:rank=0:step=1:times=0:bit=20", 2), HasSubstr("rank 0 or 1"));
  EXPECT_THAT(refused("loss:scale:rank=3:step=1:times=0", 4), HasSubstr("rank 3 (the loss of"));
}

TEST(Suspects, TakePartInTheMostDisputes) {
  EXPECT_THAT(suspects({2, 3}, 1, 4), ElementsAre(2));  // its own, and those of 3 that it checked
  EXPECT_THAT(suspects({0, 1}, 1, 2), ElementsAre(0, 1));
  EXPECT_THAT(suspects({5}, 2, 8), ElementsAre(3, 5));
  EXPECT_THAT(suspects({1, 3}, 2, 8), ElementsAre(1));
  EXPECT_THAT(suspects({0}, 0, 1), ElementsAre(0));
}

TEST(ShiftOfChecks, KeepsExpertsInPlace) {
  EXPECT_EQ(shift_of_checks(ParallelPlan(1, {1})), 0);
  EXPECT_EQ(shift_of_checks(ParallelPlan(4, {1})), 1);
  EXPECT_EQ(shift_of_checks(ParallelPlan(4, {1, 2})), 2);
  EXPECT_EQ(shift_of_checks(ParallelPlan(4, {2, 4})), 0);
  EXPECT_EQ(shift_of_checks(ParallelPlan(8, {2, 4})), 4);
}

}  // namespace
}  // namespace ziggurat::train
