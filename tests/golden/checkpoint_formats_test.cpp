// A checkpoint of every format that ever was, each of the same two steps of one run (data/checkpoints): it
// loads for ever, computes the loss that was recorded then, and trains on.
#include <filesystem>

#include <gtest/gtest.h>

#include "tests/support/source_dir.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/comm/thread.h>
#include <ziggurat/config/config.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::train {
namespace {

namespace fs = std::filesystem;

// Told by the program that wrote them, on two ranks.
constexpr double kValidationLoss = 0x1.974d1b5febafcp+1, kLossOfStep3 = 0x1.928823b253a3bp+1;
constexpr double kTolerance = 1e-5;  // of fp32 sums in another order, on another CPU

class CheckpointFormat : public ::testing::TestWithParam<int> {};

TEST_P(CheckpointFormat, LoadsWithItsLoss) {
  const testing::TempDir dir;
  const fs::path golden =
      fs::path(test::source_dir()) / fmt::format("tests/golden/data/checkpoints/format_{}", GetParam());
  for (const int ranks : {1, 2}) {
    const fs::path run = dir / fmt::format("on_{}", ranks);
    fs::create_directories(run);
    fs::copy(golden, run / "checkpoints", fs::copy_options::recursive);
    const CheckpointReader reader(run.string());
    EXPECT_EQ(reader.manifest().format_version, GetParam());
    RunConfig config;
    parse_config(config, reader.manifest().config, reader.path());
    config.output = run;
    run_on_threads(ranks, [&](Communicator& world) {
      Trainer trainer(config, world);
      EXPECT_EQ(trainer.steps_done(), 2);
      EXPECT_NEAR(trainer.validate().loss, kValidationLoss, kTolerance);
      EXPECT_NEAR(trainer.step().loss, kLossOfStep3, kTolerance);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, CheckpointFormat,
                         ::testing::Range(int{Manifest::kOldestFormatVersion},
                                          int{Manifest::kFormatVersion} + 1));

}  // namespace
}  // namespace ziggurat::train
