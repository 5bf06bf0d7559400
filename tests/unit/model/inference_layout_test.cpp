// Which ranks hold what of a model that is asked, and what users hear where it cannot be cut.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/bare_model.h"
#include "tests/support/failing_calls.h"
#include <ziggurat/core/error.h>
#include <ziggurat/model/inference_layout.h>

namespace ziggurat::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string message_of(const ModelConfig& config, const InferenceLayout& layout, int ranks) {
  try {
    place(config, layout, ranks);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::argument);
    return error.what();
  }
  return "";
}

TEST(InferenceLayout, WithoutKeysExpertsLieOnAsManyRanksAsTheyCan) {
  const PlacedModel placed = place(test::tiny_model("pr_moe"), {}, 4);
  EXPECT_THAT(placed.config.expert_parallel_sizes(), ElementsAre(2, 4, 4));
  EXPECT_EQ(placed.plan.dp().size, 4);
  EXPECT_FALSE(placed.plan.tokens_alike());
}

TEST(InferenceLayout, MoreRanksThanExpertsShareEachOfThem) {
  const ModelConfig config = test::tiny_model("pr_moe", {"model.heads=8"});  // 2, 4 and 8 experts
  const PlacedModel placed = place(config, {.tensor = 8}, 8);
  EXPECT_EQ(placed.plan.expert_tp().size, 4);
  EXPECT_THAT(placed.config.expert_parallel_sizes(), ElementsAre(2, 2, 2));
  EXPECT_EQ(place(config, {.tensor = 2}, 8).plan.expert_tp().size, 1);
  EXPECT_EQ(place(config, {.expert_slice = 2}, 8).plan.ep(4).stride, 2);
}

// The paper's example: 128 ranks, tensor parallelism 8, 128 experts. Each rank exchanges with 15 others.
TEST(InferenceLayout, ExchangesAmongEqualPlaces) {
  const ParallelPlan plan(128, {128}, {.tp = 8, .tokens_alike = true});
  EXPECT_EQ(plan.exchange(128), (RankAxis{"exchange128", 16, 8}));
  EXPECT_EQ(plan.fold(), (RankAxis{"fold", 8, 1}));
  const ParallelPlan sliced(256, {32}, {.tp = 2, .expert_tp = 8, .tokens_alike = true});
  EXPECT_EQ(sliced.exchange(32), (RankAxis{"exchange32", 32, 8}));
  EXPECT_EQ(sliced.fold(), (RankAxis{"fold", 4, 2}));
}

TEST(InferenceLayout, WhatCannotBeCutIsToldWithACure) {
  const ModelConfig dense = test::tiny_model("350m_dense"), moe = test::tiny_model("pr_moe");
  EXPECT_THAT(message_of(dense, {.tensor = 3}, 4), HasSubstr("the number of ranks (4)"));
  EXPECT_THAT(message_of(dense, {.tensor = 3}, 4), HasSubstr("choose one of 1, 2, 4"));
  EXPECT_THAT(message_of(dense, {.tensor = 16}, 16), HasSubstr("model.heads"));
  EXPECT_THAT(message_of(dense, {.expert_slice = 2}, 4), HasSubstr("no experts"));
  EXPECT_THAT(message_of(moe, {.tensor = 4, .expert_slice = 1}, 4), HasSubstr("the same experts"));
  EXPECT_THAT(message_of(moe, {.expert_slice = 3}, 4), HasSubstr("expert_slice=3"));
  const ModelConfig wide = test::tiny_model("modern_moe", {"model.qk_norm=width"});
  EXPECT_THAT(message_of(wide, {.tensor = 2}, 2), HasSubstr("use tensor=1"));
  const ModelConfig grouped = test::tiny_model(
      "modern_moe", {"model.heads=12", "model.hidden=48", "model.kv_heads=3", "model.vocab_multiple=96"});
  EXPECT_THAT(message_of(grouped, {.tensor = 2}, 2), HasSubstr("key and value heads (3)"));
  EXPECT_EQ(message_of(grouped, {.tensor = 3}, 3), "");
}

}  // namespace
}  // namespace ziggurat::model
