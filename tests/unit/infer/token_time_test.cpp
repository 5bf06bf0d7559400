// The time of a token on a cluster: what is read, how many messages go, and what the DeepSpeed-MoE paper has.
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/source_dir.h"
#include <ziggurat/config/config.h>
#include <ziggurat/infer/token_time.h>
#include <ziggurat/plan/exchange.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::infer {
namespace {

ClusterConfig cluster(const std::string& name) {
  ClusterConfig config;
  load_config(config, test::source_dir() + "/configs/clusters/" + name + ".yaml");
  return config;
}

// The paper's models (table 6; its 8B and 24B have each other's layers, as the sizes say): every other layer
// has 128 experts.
model::ModelConfig moe_128(int64_t layers, int64_t hidden) {
  train::RunConfig config;
  load_config(
      config, test::source_dir() + "/configs/published/1.3b_moe128.yaml",
      std::vector<std::string>{
          fmt::format("model.hidden={}", hidden), fmt::format("model.heads={}", hidden / 128),
          fmt::format("model.blocks=[{{repeat: {}, pattern: [{{ffn: dense}}, {{ffn: moe, experts: 128}}]}}]",
                      layers / 2)});
  return config.model;
}

TokenTerm term(const TokenTime& time, const std::string& name) {
  for (const TokenTerm& t : time.terms) {
    if (t.name == name) return t;
  }
  return {};
}

// p - 1; 2 (G - 1) + p / G - 1; and p / L - 1 where L ranks share matrices (section 5.2 and 5.3).
TEST(Exchange, MessagesOfTheThreeWays) {
  constexpr int kNode = 8;
  EXPECT_EQ(messages_of_exchange({"ep", 128, 1}, kNode, false), (ExchangeMessages{7, 120}));
  EXPECT_EQ(messages_of_exchange({"ep", 128, 1}, kNode, true), (ExchangeMessages{14, 15}));
  const ParallelPlan plan(128, {128}, {.tp = 8, .tokens_alike = true});
  EXPECT_EQ(messages_of_exchange(plan.exchange(128), kNode, false), (ExchangeMessages{0, 15}));
  EXPECT_EQ(messages_of_exchange({"ep", 8, 1}, kNode, true), (ExchangeMessages{7, 0}));
}

TEST(Exchange, SmallBlocksGoByNodesAndLargeOnesDoNot) {
  const ClusterConfig a100 = cluster("a100_128");
  const RankAxis all{"ep", 128, 1};
  const auto seconds = [&](double bytes, AllToAll way) { return exchange_seconds(bytes, all, a100, way); };
  EXPECT_LT(seconds(1e3, AllToAll::hierarchical), 0.3 * seconds(1e3, AllToAll::flat));
  EXPECT_GT(seconds(1e9, AllToAll::hierarchical), seconds(1e9, AllToAll::flat));
  for (const double bytes : {1e3, 1e6, 1e9}) {
    EXPECT_EQ(seconds(bytes, AllToAll::automatic),
              std::min(seconds(bytes, AllToAll::flat), seconds(bytes, AllToAll::hierarchical)));
  }
  EXPECT_EQ(exchange_seconds(1e6, {"ep", 1, 1}, a100, AllToAll::automatic), 0);
}

TEST(TokenTime, ReadsEachMatrixOnceAndTheExpertsThatAreChosen) {
  const model::ModelConfig config = moe_128(24, 2048);
  const double h2 = 2048.0 * 2048.0, head = 2048.0 * static_cast<double>(config.padded_vocab());
  const ClusterConfig a100 = cluster("a100_128");
  const TokenTime one = time_of_token(config, {.ranks = 1}, a100);
  const double dense = 2 * (24 * 4 * h2 + 12 * 8 * h2 + head), experts = 12 * 2 * 8 * h2;
  EXPECT_NEAR(term(one, "matrices but experts'").bytes, dense, 0.001 * dense);
  EXPECT_NEAR(term(one, "experts").bytes, experts, 0.001 * experts);  // of one token
  EXPECT_EQ(term(one, "all-to-alls").count, 0);
  const TokenTime cut = time_of_token(config, {.ranks = 8, .layout = {.tensor = 8}}, a100);
  // And what the rows of eight texts take.
  EXPECT_NEAR(term(cut, "matrices but experts'").bytes, dense / 8, 0.03 * dense / 8);
  EXPECT_LT(cut.seconds, one.seconds);
  EXPECT_NEAR(cut.memory, one.memory / 8, 0.01 * one.memory);
}

TEST(TokenTime, ExchangesAmongEqualPlacesOnly) {
  const model::ModelConfig config = moe_128(24, 2048);
  const ClusterConfig a100 = cluster("a100_128");
  const auto messages = [&](const model::InferenceLayout& layout) {
    return term(time_of_token(config, {.ranks = 128, .layout = layout}, a100), "all-to-alls").count;
  };
  constexpr int64_t kExchanges = 12 * 3;  // counts, rows there and back
  EXPECT_EQ(messages({.all_to_all = AllToAll::flat}), kExchanges * 127);
  EXPECT_EQ(messages({.all_to_all = AllToAll::hierarchical}), kExchanges * (14 + 15));
  EXPECT_EQ(messages({.tensor = 8}), kExchanges * 15);
}

// A trillion parameters (24B + MoE-128) on 128 A100, tensor parallelism 8: "under 25 ms" in the paper. We get
// 20, from the device's and the links' figures alone.
TEST(TokenTime, ATrillionParametersTakeWhatThePaperHas) {
  const model::ModelConfig config = moe_128(30, 8192);
  const TokenTime time =
      time_of_token(config, {.ranks = 128, .layout = {.tensor = 8}}, cluster("a100_256_deepspeed_serving"));
  EXPECT_NEAR(time.seconds, 0.025, 0.2 * 0.025);
  const ClusterConfig ours = cluster("a100_256");
  EXPECT_LE(time_of_token(config, {.ranks = 128, .layout = {.tensor = 8}}, ours).seconds, time.seconds);
}

// 52B at 8 texts a GPU: measured 27, 19, 15 and 13 ms on 8 to 64, which 11 ms + 128 ms / GPUs describes. What
// we know of explains half of either term, and nobody says what took the rest: no figure is bent to reach it.
TEST(TokenTime, OfTheSmallestModelHalfIsNotExplained) {
  const model::ModelConfig config = moe_128(24, 2048);
  const ClusterConfig authors = cluster("a100_256_deepspeed_serving");
  double before = 1;
  for (const auto& [ranks, measured] : {std::pair(8, 0.027), {16, 0.019}, {32, 0.015}, {64, 0.013}}) {
    const double seconds = time_of_token(config, {.ranks = ranks, .texts = 8}, authors).seconds;
    EXPECT_LT(seconds, measured);
    EXPECT_GT(seconds, 0.4 * measured);
    EXPECT_LT(seconds, before);  // more GPUs are faster, as there
    before = seconds;
  }
}

}  // namespace
}  // namespace ziggurat::infer
