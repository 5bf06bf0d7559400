// Saves of a run: shared by ranks, beside the training, and what becomes of the run where they fail.
#include <filesystem>
#include <numeric>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "tests/support/failing_calls.h"
#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/core/injection.h>

namespace ziggurat::train {
namespace {

namespace fs = std::filesystem;
using test::WatchedCalls;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ziggurat::testing::error_of;
using ziggurat::testing::read_text;
using ziggurat::testing::TempDir;

class SavingTest : public ::testing::Test {
 protected:
  SavingTest() : config_(test::small_dense(folder_ / "run")) {
    config_.checkpoint.resume = Resume::automatic;
    config_.checkpoint.every = 1;
    config_.checkpoint.keep = 0;
    config_.eval.sequences = 0;
    config_.train.tokens = 4 * config_.batch.global_batch * config_.batch.sequence_length;
  }
  void TearDown() override { inject(""); }

  void run(int ranks = 2) const {
    run_on_threads(ranks, [&](Communicator& world) { Trainer(config_, world).run(); });
  }
  std::vector<int64_t> saved() const {
    std::vector<int64_t> steps;
    for (const std::string& path : list_checkpoints(folder_ / "run/checkpoints")) {
      steps.insert(steps.begin(), CheckpointReader(path).manifest().step);
    }
    return steps;
  }
  std::vector<nlohmann::json> records(const std::string& kind) const {
    std::vector<nlohmann::json> found;
    std::istringstream lines(read_text(folder_ / "run/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const auto record = nlohmann::json::parse(line);
      if (record["kind"] == kind) found.push_back(record);
    }
    return found;
  }
  // While it lives, nothing of this step can be written.
  static system_calls::FaultHook fails_at(int64_t step) {
    return [part = fmt::format(".step_{:08d}.tmp/", step)](std::string_view call, const fs::path& path) {
      const bool due = call == "write" && path.string().find(part) != std::string::npos;
      return WatchedCalls::Fault{.error = due ? ENOSPC : 0};
    };
  }

  TempDir folder_;
  RunConfig config_;
};

TEST_F(SavingTest, RanksThatHoldTheSameWriteEqualShares) {
  for (const int64_t zero : {0, 1}) {
    config_.parallel.zero = zero;
    config_.output = folder_ / fmt::format("zero_{}", zero);
    run(4);
    CheckpointReader reader(config_.output);
    ASSERT_EQ(reader.manifest().files.size(), 4u);
    int64_t least = INT64_MAX, most = 0;
    for (const FileRecord& file : reader.manifest().files) {
      int64_t bytes = 0;
      for (const SliceRecord& slice : file.slices) bytes += slice.box.numel() * size_of(slice.dtype);
      least = std::min(least, bytes), most = std::max(most, bytes);
    }
    EXPECT_GT(least, 1000);
    EXPECT_LE(most - least, zero == 0 ? 4 : most / 10) << "of zero the shares are padded";
    reader.verify();
  }
}

TEST_F(SavingTest, EverySaveIsToldWithItsStall) {
  for (const bool async : {true, false}) {
    config_.checkpoint.async = async;
    config_.output = folder_ / "run";
    fs::remove_all(folder_ / "run");
    run();
    EXPECT_THAT(saved(), ElementsAre(1, 2, 3, 4));
    const std::vector<nlohmann::json> told = records("checkpoint");
    ASSERT_EQ(told.size(), 4u);
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(told[i]["step"], i + 1);
      EXPECT_EQ(told[i]["saved"], true);
      EXPECT_GT(told[i]["stall_seconds"], 0.0);
      EXPECT_GT(told[i]["write_seconds"], 0.0);
    }
  }
}

TEST_F(SavingTest, AFailureIsToldAndTheRunGoesOn) {
  {
    const WatchedCalls watched(fails_at(2));
    run();
  }
  EXPECT_THAT(saved(), ElementsAre(1, 3, 4));
  const std::vector<nlohmann::json> told = records("checkpoint");
  ASSERT_EQ(told.size(), 4u);
  EXPECT_EQ(told[1]["saved"], false);
  EXPECT_THAT(told[1]["error"].get<std::string>(),
              AllOf(HasSubstr("step_00000002"), HasSubstr("errno 28"), HasSubstr("make room")));
  EXPECT_EQ(told[3]["saved"], true);
  EXPECT_EQ(records("end").size(), 1u);
}

TEST_F(SavingTest, AFailureEndsARunThatAsksForThat) {
  config_.checkpoint.on_failure = OnSaveFailure::stop;
  const WatchedCalls watched(fails_at(2));
  EXPECT_THAT(error_of(ErrorKind::checkpoint, [&] { run(); }),
              AllOf(HasSubstr("step 2"), HasSubstr("checkpoint.on_failure"), HasSubstr("errno 28")));
}

TEST_F(SavingTest, WithoutItsLastCheckpointARunIsNotAtItsEnd) {
  {
    const WatchedCalls watched(fails_at(4));
    EXPECT_THAT(error_of(ErrorKind::checkpoint, [&] { run(); }),
                AllOf(HasSubstr("the last checkpoint could not be saved"), HasSubstr("errno 28")));
  }
  EXPECT_THAT(saved(), ElementsAre(1, 2, 3));
  EXPECT_THAT(records("end"), ElementsAre());
  run();
  EXPECT_THAT(saved(), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(records("end").size(), 1u);
}

TEST_F(SavingTest, WhatWasCopiedBeforeANumericFaultIsSaved) {
  inject("loss:nan:step=3:rank=1");
  error_of(ErrorKind::numeric, [&] { run(); });
  EXPECT_THAT(saved(), ElementsAre(1, 2));
}

TEST_F(SavingTest, OldOnesGoButForEveryFewSteps) {
  config_.checkpoint.keep = 1;
  config_.checkpoint.keep_every = 2;
  config_.train.tokens = 5 * config_.batch.global_batch * config_.batch.sequence_length;
  run();
  EXPECT_THAT(saved(), ElementsAre(2, 4, 5));
}

}  // namespace
}  // namespace ziggurat::train
