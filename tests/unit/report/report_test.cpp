#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/report/page.h>

namespace ziggurat::report {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ziggurat::testing::TempDir;
using ziggurat::testing::write_text;

std::string step(int64_t number, double loss, const std::string& more = "") {
  return fmt::format(R"({{"kind":"step","step":{},"total_steps":1000,"tokens":{},"loss":{},"grad_norm":1.5,)"
                     R"("step_seconds":2,"flops_per_second":10,"tokens_per_second":50{}}})",
                     number, 100 * number, loss, more) +
         '\n';
}

std::string layer(const std::string& tokens) {
  return R"(,"moe":[{"layer":1,"imbalance":2,"drop_rate":0.25,"entropy":0.5,"tokens_per_expert":)" + tokens +
         "}]";
}

class Report : public ::testing::Test {
 protected:
  RunHistory read(const std::string& metrics, const std::string& config = "") {
    write_text(folder_ / "metrics.jsonl", metrics);
    if (!config.empty()) write_text(folder_ / "config.yaml", config);
    return read_history(folder_.path().string());
  }
  TempDir folder_;
};

TEST_F(Report, AddsUpTimeAndWork) {
  const RunHistory run = read(step(1, 4) + step(2, 3));
  ASSERT_EQ(run.steps.size(), 2U);
  EXPECT_EQ(run.steps[1].seconds, 4);
  EXPECT_EQ(run.steps[1].flops, 40);
  EXPECT_EQ(run.total_steps, 1000);
  EXPECT_FALSE(run.ended);
}

TEST_F(Report, AStepThatWasDoneAgainCountsOnce) {
  const RunHistory run = read(step(1, 4) + step(2, 3) + step(3, 2) +
                              R"({"kind":"validation","split":"valid","step":3,"loss":9})" + "\n" +
                              R"({"kind":"start","step":1,"time":"now"})" + "\n" + step(2, 2.5));
  ASSERT_EQ(run.steps.size(), 2U);
  EXPECT_EQ(run.steps[1].loss, 2.5);
  EXPECT_EQ(run.steps[1].seconds, 4);  // not 8
  EXPECT_TRUE(run.validations.empty());
  EXPECT_THAT(run.starts, ElementsAre("now"));
}

TEST_F(Report, ForeignLinesAreCountedAndAHalfOneWaits) {
  write_text(folder_ / "metrics.jsonl", "nonsense\n[1]\n" + step(1, 4) + R"({"kind":"st)");
  HistoryReader reader(folder_.path().string());
  EXPECT_TRUE(reader.read_more());
  EXPECT_EQ(reader.history().unreadable, 2);
  EXPECT_EQ(reader.history().steps.size(), 1U);
  EXPECT_FALSE(reader.read_more());
  write_text(folder_ / "metrics.jsonl", "nonsense\n[1]\n" + step(1, 4) + step(2, 3));
  EXPECT_TRUE(reader.read_more());
  EXPECT_EQ(reader.history().steps.size(), 2U);
}

TEST_F(Report, AFolderWithoutMetricsIsNamedWithTheCure) {
  EXPECT_THAT(ziggurat::testing::error_of(ErrorKind::data, [&] { read_history(folder_ / "nowhere"); }),
              ::testing::AllOf(HasSubstr("nowhere"), HasSubstr("run/<name>")));
}

TEST_F(Report, LoadsBecomeLettersAroundTheMean) {
  const RunHistory run = read(step(1, 4, layer("[10,10,20,0]")) + step(2, 3, layer("[5,5,5,5]")));
  const auto data = page_data(std::vector{run})["runs"][0]["layers"][0];
  EXPECT_EQ(data["experts"], 4);
  EXPECT_THAT(data["load"].get<std::vector<std::string>>(), ElementsAre("ggoA", "gggg"));
  EXPECT_EQ(data["drop"][0], 0.25);
}

TEST_F(Report, LongRunsGetFewColumnsThatForgetNothing) {
  RunHistory run;
  for (int64_t i = 1; i <= 10'000; ++i) run.add(nlohmann::json::parse(step(i, 1, layer("[1,3]"))));
  ASSERT_EQ(run.layers.size(), 1U);
  EXPECT_LE(run.layers[0].columns.size(), kColumns);
  EXPECT_GE(run.layers[0].columns.size(), kColumns / 2);
  double tokens = 0;
  int64_t steps = 0;
  for (const LayerColumn& column : run.layers[0].columns) tokens += column.tokens[1], steps += column.steps;
  EXPECT_EQ(tokens, 30'000);
  EXPECT_EQ(steps, 10'000);
  const auto curves = page_data(std::vector{run})["runs"][0]["steps"];
  EXPECT_LE(curves["loss"].size(), 1200U);
  EXPECT_EQ(curves["step"].back(), 10'000);
}

// The cross-entropy is the curve of the loss.
TEST_F(Report, PartsOfTheLossAreCurves) {
  const RunHistory run = read(step(1, 4, R"(,"losses":{"cross_entropy":4,"balance":0.5})") +
                              step(2, 3, R"(,"losses":{"cross_entropy":3})"));
  const auto parts = page_data(std::vector{run})["runs"][0]["steps"]["parts"];
  EXPECT_EQ(parts, nlohmann::json({{"balance", {0.5, nullptr}}}));
}

TEST_F(Report, OfSeveralRunsOnlyKeysThatDifferAreTold) {
  RunHistory a = read(step(1, 4), "model: {hidden: 32, heads: 4, blocks: [{pattern: [{ffn: dense}]}]}\n");
  RunHistory b = a;
  b.config += "optimizer: {lr: 1.0e-2}\n";
  const auto diff = page_data(std::vector{a, b})["diff"];
  ASSERT_EQ(diff.size(), 1U) << diff.dump(1);
  EXPECT_EQ(diff[0]["key"], "optimizer.lr");
  EXPECT_THAT(diff[0]["values"].get<std::vector<std::string>>(), ElementsAre("0.0003", "0.01"));
  const auto changed = page_data(std::vector{a})["diff"];
  EXPECT_EQ(changed[0]["key"], "model.hidden");
}

TEST_F(Report, TextsCannotLeaveTheirScript) {
  RunHistory run = read(step(1, 4));
  run.samples = {{1, "</script><script>alert(1)</script>", "<!-- \xff"}};
  const std::string page = html_page(std::vector{run});
  EXPECT_THAT(page, Not(HasSubstr("alert(1)</script>")));
  EXPECT_THAT(page, HasSubstr("\\u003c/script>"));
  EXPECT_THAT(page, Not(HasSubstr("REPORT_DATA")));
  EXPECT_THAT(page, Not(HasSubstr("src=")));
}

}  // namespace
}  // namespace ziggurat::report
