#include <filesystem>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"

namespace ziggurat::train {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;
using ziggurat::testing::read_text;
using ziggurat::testing::TempDir;

StepRecord example() {
  StepRecord r;
  r.step = 1200, r.total_steps = 286102;
  r.tokens = 1'260'000'000, r.total_tokens = 300'000'000'000, r.samples = 615'234;
  r.losses = {{"cross_entropy", 3.2145}, {"balance", 0.012}};
  r.loss = 3.2145, r.auxiliary_loss = 0.012, r.lr = 5.9e-5, r.grad_norm = 0.42;
  r.step_seconds = 2, r.tokens_per_second = 512'000, r.flops_per_second = 4.1e12, r.roof_fraction = 0.41;
  r.memory_bytes = int64_t{3} << 30, r.eta_seconds = 5400;
  return r;
}

TEST(ProgressLine, SaysWhatPeopleWatch) {
  EXPECT_EQ(
      progress_line(example(), false),
      "step 1200/286102 | 1.26B/300B tok | loss 3.2145 | lr 5.90e-05 | gnorm 0.420 | 512K tok/s | 41% roof "
      "| mem 3GiB | ETA 1h30m");
}

TEST(ProgressLine, LeavesTheRoofOutUntilItIsMeasured) {
  StepRecord r = example();
  r.roof_fraction = 0;
  EXPECT_THAT(progress_line(r, false), HasSubstr("512K tok/s | mem 3GiB"));
}

TEST(ProgressLine, ShowsTheWorstLayerAndTheMeanDropRate) {
  StepRecord r = example();
  r.layers.resize(2);
  r.layers[0].imbalance = 1.5, r.layers[0].drop_rate = 0.1;
  r.layers[1].imbalance = 2.25, r.layers[1].drop_rate = 0.3;
  EXPECT_THAT(progress_line(r, false), HasSubstr("| moe imb 2.25 drop 20.0% | ETA"));
}

TEST(ProgressLine, ExactLossesKeepEveryBit) {
  StepRecord r = example();
  r.loss = 0x1.5bf0a8b145769p+1;
  EXPECT_THAT(progress_line(r, true), HasSubstr("(0x1.5bf0a8b145769p+1)"));
  EXPECT_THAT(progress_line(r, false), Not(HasSubstr("0x")));
}

TEST(Json, HoldsTheWholeRecord) {
  StepRecord r = example();
  r.layers = {{.layer = 3, .tokens_per_expert = {5, 7}, .imbalance = 1.25, .drop_rate = 0.5, .entropy = 0.6}};
  const json j = json::parse(to_json(r));
  EXPECT_EQ(j["kind"], "step");
  EXPECT_EQ(j["step"], 1200);
  EXPECT_EQ(j["tokens"], 1'260'000'000);
  EXPECT_EQ(std::strtod(j["loss_hex"].get<std::string>().c_str(), nullptr), r.loss);
  EXPECT_EQ(j["grad_norm"], 0.42);
  EXPECT_EQ(j["losses"], json({{"cross_entropy", 3.2145}, {"balance", 0.012}}));
  EXPECT_FALSE(j.contains("objective"));
  EXPECT_EQ(j["moe"].size(), 1u);
  EXPECT_EQ(j["moe"][0]["layer"], 3);
  EXPECT_EQ(j["moe"][0]["tokens_per_expert"], json({5.0, 7.0}));
  EXPECT_FALSE(json::parse(to_json(example())).contains("moe"));
}

class CutMetrics : public ::testing::Test {
 protected:
  std::string after(const std::string& text, int64_t step) const {
    ziggurat::testing::write_text(path(), text);
    cut_metrics(path(), step);
    return read_text(path());
  }
  std::string path() const { return folder_ / "metrics.jsonl"; }
  static std::string record(const char* kind, int64_t step, const char* more = "") {
    return fmt::format(R"({{"kind":"{}","step":{}{}}})", kind, step, more) + '\n';
  }
  TempDir folder_;
};

TEST_F(CutMetrics, DropsWhatComesAfterTheStep) {
  const std::string until = record("start", 0) + record("validation", 0) + record("step", 1) +
                            record("step", 2) + record("validation", 2);
  EXPECT_EQ(after(until + record("step", 3) + record("validation", 3) + record("end", 3), 2), until);
  EXPECT_EQ(after(until, 2), until);
  EXPECT_EQ(after(until, 7), until);
}

TEST_F(CutMetrics, DropsLinesThatAreCutOff) {
  const std::string one = record("step", 1);
  for (const char* rest : {"{\"kind\":\"st", "{\"kind\":\"step\",\"step\":2}", "\n", "\0\0\0"}) {
    EXPECT_EQ(after(one + rest, 5), one) << rest;
  }
}

TEST_F(CutMetrics, OfStepsToldTwiceTheLaterStays) {
  EXPECT_EQ(after(record("step", 1) + record("step", 2, ",\"loss\":1") + record("step", 2, ",\"loss\":2"), 5),
            record("step", 1) + record("step", 2, ",\"loss\":2"));
}

TEST_F(CutMetrics, KeepsWhatOthersWrote) {
  const std::string text = "{\"note\":\"mine\"}\n" + record("step", 1);
  EXPECT_EQ(after(text + record("step", 9), 1), text);
}

TEST_F(CutMetrics, AMissingFileIsFine) {
  cut_metrics(path(), 3);
  EXPECT_FALSE(std::filesystem::exists(path()));
  EXPECT_FALSE(says_ended(path(), 3));
}

TEST_F(CutMetrics, TheEndIsOfOneStep) {
  ziggurat::testing::write_text(path(), record("step", 4) + record("end", 4));
  EXPECT_TRUE(says_ended(path(), 4));
  EXPECT_FALSE(says_ended(path(), 5));
}

// A record's numbers agree with each other and with the batch, on any number of ranks.
TEST(StepRecord, CountsTheStep) {
  const TempDir folder;
  const RunConfig config = test::small_pr_moe(folder.path());
  for (const int ranks : {1, 2}) {
    const StepRecord r = test::train_on_threads(config, ranks, 2).steps.back();
    EXPECT_EQ(r.step, 2);
    EXPECT_EQ(r.samples, 32);
    EXPECT_EQ(r.tokens, 32 * 16);
    EXPECT_EQ(r.total_steps, config.train.tokens / (16 * 16));
    EXPECT_GT(r.tokens_per_second, 0);
    ASSERT_EQ(r.layers.size(), 3u);
    const int64_t layers[] = {1, 3, 5}, experts[] = {2, 4, 8};
    for (size_t i = 0; i < 3; ++i) {
      const LayerLoad& load = r.layers[i];
      EXPECT_EQ(load.layer, layers[i]);
      ASSERT_EQ(load.tokens_per_expert.size(), static_cast<size_t>(experts[i]));
      double routed = 0, busiest = 0;
      for (const double n : load.tokens_per_expert) routed += n, busiest = std::max(busiest, n);
      EXPECT_EQ(routed, 256);  // top-1: every token once
      EXPECT_DOUBLE_EQ(load.imbalance, busiest * static_cast<double>(experts[i]) / 256);
      EXPECT_GT(load.entropy, 0);
      EXPECT_LE(load.entropy, std::log(static_cast<double>(experts[i])) * (1 + 1e-6));
      EXPECT_GE(load.drop_rate, 0);
      EXPECT_GE(load.balance_loss, 0.5);  // 1 when balanced
    }
  }
}

}  // namespace
}  // namespace ziggurat::train
