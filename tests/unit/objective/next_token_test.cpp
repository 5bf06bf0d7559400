#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/objective/objective_bench.h"
#include <ziggurat/objective/next_token.h>

namespace ziggurat::objective {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> names(const Objective& objective) {
  std::vector<std::string> all;
  for (const LossPart& part : objective.parts()) all.push_back(part.name);
  return all;
}

TEST(NextToken, NamesThePartsThatItsModelHas) {
  const test::BenchModel dense(test::bench_model({{}})),
      sparse(test::bench_model({{.ffn = model::FfnKind::moe, .experts = 2}}));
  EXPECT_THAT(names(NextToken(dense.gpt)), ElementsAre("cross_entropy"));
  EXPECT_THAT(names(NextToken(dense.gpt, {.z_loss = 0.1})), ElementsAre("cross_entropy", "z_loss"));
  EXPECT_THAT(names(NextToken(sparse.gpt, {.z_loss = 0.1})),
              ElementsAre("cross_entropy", "z_loss", "balance", "router_z"));
}

TEST(NextToken, PartsAreWhatIsDifferentiated) {
  model::ModelConfig config = test::bench_model(
      {{}, {.ffn = model::FfnKind::residual_moe, .experts = 3}, {.ffn = model::FfnKind::moe, .experts = 2}});
  config.moe.balance_coefficient = 0.5, config.moe.z_coefficient = 0.2;
  test::BenchModel model(config);
  test::ObjectiveBench bench;
  NextToken objective(model.gpt, {.z_loss = 0.05});
  for (const double part : bench.parts(objective)) EXPECT_GT(part, 1e-3);
  const auto [gradient, difference] = bench.derivative(objective, model.store);
  EXPECT_GT(std::abs(gradient), 0.1);
  EXPECT_NEAR(gradient, difference, 1e-6 * std::abs(gradient));
}

TEST(NextToken, EvaluationKnowsNoCoefficients) {
  const test::BenchModel model(test::bench_model({{}}));
  test::ObjectiveBench bench;
  NextToken objective(model.gpt, {.z_loss = 0.05});
  const std::vector<double> training = bench.parts(objective);
  const ops::LossResult evaluated =
      ops::read_loss(objective.evaluate(bench.begin(false), bench.batch()), bench.stream());
  EXPECT_EQ(evaluated.sum, training[0]);
  EXPECT_EQ(evaluated.z_loss_sum, 0);
  EXPECT_EQ(static_cast<double>(evaluated.tokens), bench.counted());
}

}  // namespace
}  // namespace ziggurat::objective
