// The findings about routing, by hand on six tokens and, of the model's own tables, against what its
// statistics count.
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/bare_model.h"
#include "tests/support/source_dir.h"
#include <ziggurat/analyse/report.h>
#include <ziggurat/config/config.h>

namespace ziggurat::analyse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Six tokens in sequences of three, three experts, top-2: token ids 7, 8, 7 and 7, 8, 9.
RoutedTokens six() {
  RoutedTokens r;
  r.token = {7, 8, 7, 7, 8, 9};
  r.next = {8, 7, -1, 8, 9, -1};
  r.predicted = {8, 8, 8, 8, 8, 8};
  r.position = {0, 1, 2, 0, 1, 2};
  r.source = {0, 0, 0, 1, 1, 1};
  r.layers = {{1, 3, 2, {0, 1, 1, 2, 0, 1, 0, 2, 1, 0, 2, 1}, {1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 1}}};
  return r;
}

TEST(Findings, LoadsAreSharesOfAllChoices) {
  const RoutedTokens r = six();
  EXPECT_THAT(loads(r.layers[0]), ElementsAre(4.0 / 12, 5.0 / 12, 3.0 / 12));
  const Matrix by_source = loads_by_source(r, r.layers[0], 2);
  EXPECT_THAT(by_source[0], ElementsAre(2.0 / 6, 3.0 / 6, 1.0 / 6));
  EXPECT_THAT(by_source[1], ElementsAre(2.0 / 6, 2.0 / 6, 2.0 / 6));
}

TEST(Findings, DropsByPosition) {
  const RoutedTokens r = six();
  EXPECT_DOUBLE_EQ(drop_rate(r.layers[0]), 3.0 / 12);
  EXPECT_THAT(drop_by_position(r, r.layers[0], 3, 3), ElementsAre(0, 0.25, 0.5));
}

TEST(Findings, DeviationsOfTokensAndPositions) {
  const RoutedTokens r = six();
  // Id 7: choices 0 1, 0 1, 0 2: shares 1/2, 1/3, 1/6. Id 8: 1 2, 1 0: 1/4, 1/2, 1/4. Id 9 is too rare.
  const auto of = [](double a, double b, double c) {
    const double m = 1.0 / 3;
    return std::sqrt(((a - m) * (a - m) + (b - m) * (b - m) + (c - m) * (c - m)) / 3);
  };
  const Deviation d = deviation_over_experts(r.layers[0], r.token, 2);
  EXPECT_EQ(d.kinds, 2);
  EXPECT_NEAR(d.deviation, (of(1.0 / 2, 1.0 / 3, 1.0 / 6) + of(0.25, 0.5, 0.25)) / 2, 1e-15);
  EXPECT_EQ(deviation_over_experts(r.layers[0], r.token, 4).kinds, 0);
  EXPECT_TRUE(std::isnan(deviation_over_experts(r.layers[0], r.token, 4).deviation));
}

TEST(Findings, SpecialisationIsTheLargestShareOfFirstChoices) {
  const RoutedTokens r = six();
  EXPECT_DOUBLE_EQ(specialisation(r.layers[0], r.token, 2), 1);  // 7: 0 0 0; 8: 1 1
  EXPECT_DOUBLE_EQ(specialisation(r.layers[0], r.token, 1), 1);
  EXPECT_DOUBLE_EQ(specialisation(r.layers[0], r.next, 1), 1);         // 8: 0 0; 7: 1; 9: 1; -1 is left out
  EXPECT_DOUBLE_EQ(specialisation(r.layers[0], r.predicted, 1), 0.5);  // 8: 0 1 0 0 1 2
}

TEST(Findings, CoactivationCountsAllPairs) {
  const Matrix p = coactivation(six().layers[0]);
  // Chosen: 0 in tokens 0 2 3 4, 1 in 0 1 2 4 5, 2 in 1 3 5.
  EXPECT_THAT(p[0], ElementsAre(0, 3.0 / 4, 1.0 / 4));
  EXPECT_THAT(p[1], ElementsAre(3.0 / 5, 0, 2.0 / 5));
  EXPECT_THAT(p[2], ElementsAre(1.0 / 3, 2.0 / 3, 0));
}

TEST(Findings, TokensOfAnExpert) {
  const RoutedTokens r = six();
  const auto own = own_tokens(r, r.layers[0], 2, 10);
  ASSERT_EQ(own[0].size(), 2U);
  EXPECT_EQ(own[0][0].token, 7);
  EXPECT_DOUBLE_EQ(own[0][0].share, 0.5);
  EXPECT_EQ(own[0][0].count, 3);
  EXPECT_EQ(own[1][0].token, 8);
  EXPECT_EQ(own_tokens(r, r.layers[0], 2, 1)[0].size(), 1U);
}

TEST(Findings, SaturationAndDistance) {
  RoutedTokens r = six();
  const RoutedLayer last = r.layers[0];
  RoutedLayer then = last;
  EXPECT_EQ(saturation(then, last).top_k, 1);
  EXPECT_EQ(distance_of_tokens(r, then, last, 2), 0);
  std::swap(then.expert[0], then.expert[1]);  // the same experts, another first
  EXPECT_EQ(saturation(then, last).top_k, 1);
  EXPECT_DOUBLE_EQ(saturation(then, last).top_1, 5.0 / 6);
  then.expert = {2, 1, 1, 2, 0, 1, 0, 2, 1, 0, 2, 1};  // id 7: 0 twice instead of three times, 2 twice
  EXPECT_DOUBLE_EQ(saturation(then, last).top_k, 11.0 / 12);
  EXPECT_DOUBLE_EQ(distance_of_tokens(r, then, last, 3), 1.0 / 6);
}

// The tables are those that the layers count, and the report names what it is about.
TEST(RoutedModel, TablesAddUp) {
  train::RunConfig config;
  load_config(config, test::source_dir() + "/configs/tiny/openmoe.yaml",
              std::vector<std::string>{"model.dropout={embedding: 0.1, attention: 0.1, hidden: 0.1}"});
  config = without_noise(config);
  test::BareModel built(config.model, DType::f32);
  EXPECT_EQ(config.model.dropout.hidden, 0);
  const SyntheticSamples source(Split::valid, 1, config.batch.sequence_length, config.model.vocab_size);
  RoutingReport report;
  report.model = "a <b>";
  report.sources = {"one", "two"};
  report.length = config.batch.sequence_length;
  report.text_of = [](int32_t id) { return fmt::format("<{}>\n", id); };
  for (const int64_t step : {5, 9}) {
    Snapshot s{"there", step, {}};
    add_routed(built.model, config, source, 6, 0, s.routed);
    add_routed(built.model, config, source, 2, 1, s.routed);
    report.snapshots.push_back(std::move(s));
  }
  const RoutedTokens& routed = report.snapshots.back().routed;
  EXPECT_EQ(routed.tokens(), 8 * config.batch.sequence_length);
  EXPECT_EQ(routed.predicted.size(), routed.token.size());
  ASSERT_EQ(routed.layers.size(), 2U);
  EXPECT_EQ(routed.layers[0].layer, 1);
  EXPECT_EQ(routed.layers[0].expert.size(), routed.token.size() * 2);
  EXPECT_GT(drop_rate(routed.layers[0]), 0);  // routed as in training
  const std::vector<double> load = loads(routed.layers[1]);
  EXPECT_NEAR(std::accumulate(load.begin(), load.end(), 0.0), 1, 1e-12);

  const nlohmann::ordered_json findings = to_json(report);
  EXPECT_EQ(findings["tokens"], routed.tokens());
  EXPECT_EQ(findings["layers"].size(), 2U);
  EXPECT_EQ(findings["layers"][0]["checkpoints"][0]["saturation"], 1.0);  // the same weights
  EXPECT_EQ(findings["layers"][0]["checkpoints"][0]["token_distance"], 0.0);
  EXPECT_THAT(tables(findings), HasSubstr("a <b>: 512 tokens, step 9"));
  const std::string page = routing_page(findings);
  EXPECT_THAT(page, HasSubstr("Routing of a &lt;b&gt;"));
  EXPECT_THAT(page, HasSubstr("<h2>Layer 3</h2>"));
  EXPECT_THAT(page, HasSubstr("&gt;\\n</code>"));  // white space is seen
  EXPECT_THAT(page, HasSubstr("style=\"fill:#1f6feb\">layer 1"));
  EXPECT_THAT(page, ::testing::Not(HasSubstr("src=")));
  EXPECT_THAT(page, ::testing::Not(HasSubstr("http")));

  // A mean of nothing is no 0.
  report.least = 1 << 20;
  const nlohmann::ordered_json nothing = to_json(report);
  EXPECT_THAT(nothing.dump(), HasSubstr("\"input\":null"));
  EXPECT_THAT(tables(nothing), HasSubstr("none: no id, or position, was there 1048576 times (--least)"));
  EXPECT_THAT(tables(nothing), ::testing::Not(HasSubstr("nan")));
  EXPECT_THAT(routing_page(nothing), HasSubstr("<td>\u2014"));
  EXPECT_THAT(routing_page(nothing), ::testing::Not(HasSubstr("nan")));
  report.least = 1;
  EXPECT_THAT(tables(to_json(report)), ::testing::Not(HasSubstr("none")));
}

}  // namespace
}  // namespace ziggurat::analyse
