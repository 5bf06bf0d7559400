#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ziggurat/model/same_model.h>

namespace ziggurat::model {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

ModelConfig small() {
  ModelConfig c;
  c.vocab_size = 300, c.max_sequence = 32, c.hidden = 32, c.heads = 4;
  c.blocks = {
      {.repeat = 2, .pattern = {{}, {.ffn = FfnKind::residual_moe, .experts = 4, .expert_parallel = 2}}}};
  return c;
}

std::vector<std::string> lines(const ModelConfig& before, const ModelConfig& after) {
  std::vector<std::string> all;
  for (const ConfigDifference& d : model_differences(before, after)) {
    all.push_back(d.key + ": " + d.before + " -> " + d.after);
  }
  return all;
}

TEST(SameModel, SpellingMakesNoDifference) {
  ModelConfig other = small();
  const BlockSpec moe{.ffn = FfnKind::residual_moe, .experts = 4, .expert_parallel = 1};
  other.name = "another name";
  other.blocks = {{.repeat = 1, .pattern = {{}, moe, {}}}, {.repeat = 1, .pattern = {moe}}};
  other.kv_heads = 4, other.head_dim = 8, other.ffn_hidden = 128, other.vocab_multiple = 384;
  EXPECT_THAT(lines(small(), other), IsEmpty());
  other.mup_base_hidden = 16, other.mup_base_head_dim = 8;  // at which scores are the usual ones
  EXPECT_THAT(lines(small(), other), IsEmpty());
}

TEST(SameModel, EveryOtherKeyDoes) {
  ModelConfig other = small();
  other.bias = false;
  other.positions = Positions::rope;
  other.moe.top_k = 2;
  EXPECT_THAT(lines(small(), other), ElementsAre("model.positions: learned -> rope",
                                                 "model.bias: true -> false", "model.moe.top_k: 1 -> 2"));
  other = small();
  other.heads = 8;
  EXPECT_THAT(lines(small(), other),
              ElementsAre("model.heads: 4 -> 8", "model.kv_heads: 4 -> 8", "model.head_dim: 8 -> 4"));
  other = small();
  other.mup_base_hidden = 16, other.mup_base_head_dim = 2;  // scores by 1 / 8 of half as much
  EXPECT_THAT(lines(small(), other), ElementsAre(testing::StartsWith("model.attention_scale: 0 -> 0.17")));
}

TEST(SameModel, LayersAreComparedOneByOne) {
  ModelConfig other = small();
  other.blocks[0].pattern[1].ffn = FfnKind::moe;
  other.blocks[0].repeat = 1;
  EXPECT_THAT(lines(small(), other),
              ElementsAre("model.blocks, layer 1: residual_moe of 4 experts -> moe of 4 experts",
                          "model.blocks, layer 2: dense -> (absent)",
                          "model.blocks, layer 3: residual_moe of 4 experts -> (absent)"));
}

}  // namespace
}  // namespace ziggurat::model
