// Runs that are asked to end before their goal.
#include <csignal>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/train/step_end.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::train {
namespace {

namespace fs = std::filesystem;
using watch::StopRequest;
using ziggurat::testing::error_of;
using ziggurat::testing::read_text;
using ziggurat::testing::TempDir;
using ziggurat::testing::write_text;

TEST(StepEnd, TheLargestOfAllRanks) {
  run_on_threads(3, [](Communicator& world) {
    const int r = world.rank();
    const StepEnd end = tell_step_end(world, {.memory_bytes = 100 - r,
                                              .made_folder_again = r == 1,
                                              .stop = r == 2 ? StopRequest::walltime : StopRequest::none,
                                              .time = {.computed = 0.5 * r, .without_core = 0.25 * r}});
    EXPECT_EQ(end.memory_bytes, 100);
    EXPECT_TRUE(end.made_folder_again);
    EXPECT_EQ(end.stop, StopRequest::walltime);
    ASSERT_EQ(end.times.size(), 3u);
    for (size_t rank = 0; rank < 3; ++rank) {
      EXPECT_EQ(end.times[rank].computed, 0.5 * static_cast<double>(rank));
      EXPECT_EQ(end.times[rank].without_core, 0.25 * static_cast<double>(rank));
    }
    const StepEnd quiet = tell_step_end(world, {.memory_bytes = 1});
    EXPECT_FALSE(quiet.made_folder_again);
    EXPECT_EQ(quiet.stop, StopRequest::none);
  });
}

class StopTest : public ::testing::Test {
 protected:
  StopTest() : config_(test::small_pr_moe(folder_ / "run")) {
    config_.checkpoint.resume = Resume::automatic;
    config_.checkpoint.every = 0;
    config_.train.tokens = 4 * config_.batch.global_batch * config_.batch.sequence_length;
  }
  fs::path run() const { return folder_ / "run"; }

  TempDir folder_;
  RunConfig config_;
};

TEST_F(StopTest, TheFileStopSavesAndKeepsTheNextOneFromStarting) {
  run_on_threads(2, [&](Communicator& world) {
    Trainer trainer(config_, world);
    world.barrier();
    if (world.rank() == 0) write_text(run() / "STOP", "");
    world.barrier();
    EXPECT_EQ(trainer.run(), StopRequest::stop_file);
    EXPECT_EQ(trainer.steps_done(), 1);
  });
  EXPECT_THAT(read_text(run() / "metrics.jsonl"), ::testing::HasSubstr(R"("kind":"stop","step":1)"));
  const auto world = make_self_communicator();
  EXPECT_THAT(error_of(ErrorKind::config, [&] { Trainer(config_, *world); }),
              ::testing::AllOf(::testing::HasSubstr("run/STOP is there"), ::testing::HasSubstr("remove it")));
  fs::remove(run() / "STOP");
  Trainer trainer(config_, *world);
  EXPECT_EQ(trainer.steps_done(), 1);
  EXPECT_EQ(trainer.run(), StopRequest::none);
}

TEST_F(StopTest, TheTimeThatIsNearlyOver) {
  config_.train.max_walltime = 1;  // this process is older, or soon will be
  const auto world = make_self_communicator();
  Trainer trainer(config_, *world);
  EXPECT_EQ(trainer.run(), StopRequest::walltime);
  EXPECT_EQ(trainer.steps_done(), 1);
  EXPECT_TRUE(fs::exists(run() / "checkpoints/step_00000001"));
}

// Where the watchdog looks to know which time is whose.
TEST_F(StopTest, PhasesAreNoted) {
  config_.checkpoint.every = 1;
  const auto world = make_self_communicator();
  Trainer trainer(config_, *world);
  EXPECT_EQ(flight_log().phase(), Phase::load);
  trainer.step();
  EXPECT_EQ(flight_log().phase(), Phase::step);
  EXPECT_EQ(flight_log().step(), 1);
  EXPECT_GT(flight_log().usual_step(), 0);
  trainer.save();
  EXPECT_EQ(flight_log().phase(), Phase::save);
  trainer.validate();
  EXPECT_EQ(flight_log().phase(), Phase::evaluation);
}

}  // namespace
}  // namespace ziggurat::train
