#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ziggurat/config/config.h>
#include <ziggurat/model/model_config.h>

namespace ziggurat::model {
namespace {

using ::testing::HasSubstr;

ModelConfig two_layers(const BlockSpec& second) {
  ModelConfig c;
  c.vocab_size = 10;
  c.vocab_multiple = 4;
  c.max_sequence = 32;
  c.hidden = 8;
  c.heads = 2;
  c.blocks = {{.repeat = 1, .pattern = {{}, second}}};
  return c;
}

// By hand, for hidden 8, vocabulary 12 (10, padded) and 16 tokens: the head 12 x 8 = 96; attention 4 x 8 x 8
// = 256 and an MLP 2 x 8 x 32 = 512 a layer. 6 FLOPs a matrix parameter; scores and their use 12 x 16 x 8 =
// 1536 a layer.
TEST(ModelCounts, DenseFlopsByHand) {
  const ModelCounts counts = count(two_layers({}), 16);
  EXPECT_EQ(counts.flops_per_token, 6 * (96 + 2 * (256 + 512)) + 2 * 1536);
  // Vectors: per layer two norms 32, attention biases 32, MLP biases 40; the last norm 16; positions 32 x 8.
  EXPECT_EQ(counts.parameters, 96 + 256 + 2 * (256 + 512 + 32 + 32 + 40) + 16);
  EXPECT_EQ(counts.active_parameters, counts.parameters);
  EXPECT_EQ(counts.expert_parameters, 0);
}

TEST(ModelCounts, MoeFlopsByHand) {
  ModelConfig c = two_layers({.ffn = FfnKind::moe, .experts = 4});
  const int64_t dense = count(two_layers({}), 16).parameters;
  c.moe.top_k = 2;
  ModelCounts counts = count(c, 16);
  EXPECT_EQ(counts.flops_per_token, 6 * (96 + 2 * 256 + 512 + 4 * 8 + 2 * 512) + 2 * 1536);
  EXPECT_EQ(counts.parameters, dense + 4 * 8 + 3 * (512 + 40));
  EXPECT_EQ(counts.active_parameters, dense + 4 * 8 + (512 + 40));
  EXPECT_EQ(counts.expert_parameters, 4 * (512 + 40));

  c.blocks[0].pattern[1].ffn = FfnKind::residual_moe;
  counts = count(c, 16);
  EXPECT_EQ(counts.flops_per_token, 6 * (96 + 2 * 256 + 2 * 512 + 4 * 8 + 2 * 8 + 2 * 512) + 2 * 1536);
  EXPECT_EQ(counts.parameters, dense + 4 * 8 + 4 * (512 + 40) + 2 * 8 + 2);
  c.moe.residual_mix = moe::ResidualMix::sum;
  EXPECT_EQ(count(c, 16).parameters, dense + 4 * 8 + 4 * (512 + 40));
  c.moe.residual_mix = moe::ResidualMix::sigmoid;
  EXPECT_EQ(count(c, 16).parameters, dense + 4 * 8 + 4 * (512 + 40) + 8 + 1);
  c.moe.coefficient_bias = false;
  EXPECT_EQ(count(c, 16).parameters, dense + 4 * 8 + 4 * (512 + 40) + 8);

  c.moe.expert_hidden = 6;  // 2 x 8 x 6 + 6 + 8
  c.moe.residual_hidden = 10;
  counts = count(c, 16);
  EXPECT_EQ(counts.expert_parameters, 4 * (96 + 14));
  EXPECT_EQ(counts.parameters, dense - (512 + 40) + (160 + 18) + 4 * 8 + 4 * (96 + 14) + 8);
  EXPECT_EQ(counts.active_parameters, dense - (512 + 40) + (160 + 18) + 4 * 8 + 2 * (96 + 14) + 8);
  EXPECT_EQ(counts.flops_per_token, 6 * (96 + 2 * 256 + 512 + 160 + 4 * 8 + 8 + 2 * 96) + 2 * 1536);
}

TEST(ModelCounts, NormsOfQueriesAndKeysAreCounted) {
  ModelConfig c = two_layers({});
  c.kv_heads = 1;
  const ModelCounts none = count(c, 16);
  c.qk_norm = nn::QkNorm::head;  // 2 layers, two weights of a head's 4
  EXPECT_EQ(count(c, 16).parameters, none.parameters + 2 * (4 + 4));
  EXPECT_EQ(count(c, 16).active_parameters, none.active_parameters + 2 * (4 + 4));
  c.qk_norm = nn::QkNorm::width;  // of 2 heads' 8 and of one key head's 4
  EXPECT_EQ(count(c, 16).parameters, none.parameters + 2 * (8 + 4));
  EXPECT_EQ(count(c, 16).flops_per_token, none.flops_per_token);
}

// Against the sizes that the models' authors published.
TEST(ModelCounts, OfModelsThatEverybodyKnows) {
  ModelConfig c;
  c.norm = nn::NormKind::rms_norm, c.positions = Positions::rope, c.activation = nn::MlpKind::swiglu;
  c.bias = c.tied_embeddings = false;
  c.vocab_multiple = 1, c.hidden = 2048, c.moe.top_k = 8;

  ModelConfig qwen3_30b_a3b = c;
  qwen3_30b_a3b.vocab_size = 151936, qwen3_30b_a3b.heads = 32, qwen3_30b_a3b.kv_heads = 4;
  qwen3_30b_a3b.head_dim = 128, qwen3_30b_a3b.ffn_hidden = 768, qwen3_30b_a3b.qk_norm = nn::QkNorm::head;
  qwen3_30b_a3b.blocks = {{.repeat = 48, .pattern = {{.ffn = FfnKind::moe, .experts = 128}}}};
  EXPECT_EQ(count(qwen3_30b_a3b, 4096).parameters, 30'532'122'624);

  ModelConfig olmoe_1b_7b = c;
  olmoe_1b_7b.vocab_size = 50304, olmoe_1b_7b.heads = 16, olmoe_1b_7b.ffn_hidden = 1024;
  olmoe_1b_7b.qk_norm = nn::QkNorm::width;
  olmoe_1b_7b.blocks = {{.repeat = 16, .pattern = {{.ffn = FfnKind::moe, .experts = 64}}}};
  EXPECT_EQ(count(olmoe_1b_7b, 4096).parameters, 6'919'161'856);
}

TEST(FitToRanks, TakesTheLargestShareThatDividesRanksAndExperts) {
  const auto fitted = [](int64_t experts, int expert_parallel, int ranks) {
    const ModelConfig c =
        two_layers({.ffn = FfnKind::moe, .experts = experts, .expert_parallel = expert_parallel});
    return fit_to_ranks(c, ranks).expert_parallel_sizes().at(0);
  };
  EXPECT_EQ(fitted(8, 8, 8), 8);
  EXPECT_EQ(fitted(8, 8, 4), 4);
  EXPECT_EQ(fitted(8, 4, 8), 4);  // never more than the config says
  EXPECT_EQ(fitted(8, 8, 1), 1);
  EXPECT_EQ(fitted(8, 8, 3), 1);  // 3 ranks cannot share 8 experts
  EXPECT_EQ(fitted(6, 6, 4), 2);
  EXPECT_EQ(fit_to_ranks(two_layers({}), 4).blocks[0].pattern[1].expert_parallel, 1);
}

std::string problems_of(const ModelConfig& c) {
  try {
    check_config(c);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config);
    return error.what();
  }
  return "";
}

TEST(ModelConfig, LayersAreWrittenOut) {
  ModelConfig c = two_layers({.ffn = FfnKind::moe, .experts = 4, .expert_parallel = 2});
  c.blocks[0].repeat = 2;
  c.blocks.push_back({.repeat = 1, .pattern = {{}}});
  EXPECT_EQ(problems_of(c), "");
  const std::vector<BlockSpec> layers = c.layers();
  ASSERT_EQ(layers.size(), 5u);
  EXPECT_EQ(layers[3].ffn, FfnKind::moe);
  EXPECT_EQ(layers[4].ffn, FfnKind::dense);
  EXPECT_EQ(c.expert_parallel_sizes(), (std::vector<int>{2, 2}));
}

TEST(ModelConfig, EveryMistakeIsTold) {
  EXPECT_THAT(problems_of(two_layers({.experts = 4})), HasSubstr("a dense layer has no experts, got 4"));
  EXPECT_THAT(problems_of(two_layers({.expert_parallel = 2})), HasSubstr("no experts to share"));
  EXPECT_THAT(problems_of(two_layers({.ffn = FfnKind::moe})),
              HasSubstr("blocks.0.pattern.1.experts: expected at least 1 for a moe layer, got 0"));
  EXPECT_THAT(problems_of(two_layers({.ffn = FfnKind::moe, .experts = 4, .expert_parallel = 3})),
              HasSubstr("expert_parallel: expected a divisor of the layer's 4 experts, got 3"));

  const ModelConfig good = two_layers({.ffn = FfnKind::residual_moe, .experts = 4});
  ASSERT_EQ(problems_of(good), "");
  ModelConfig c = good;
  c.heads = 3;
  EXPECT_THAT(problems_of(c), HasSubstr("heads: expected a divisor of hidden (8)"));
  c.head_dim = 4;
  EXPECT_EQ(problems_of(c), "");
  c = good, c.kv_heads = 3;
  EXPECT_THAT(problems_of(c), HasSubstr("kv_heads: expected a divisor of heads (2), got 3"));
  c = good, c.positions = Positions::rope, c.head_dim = 5;
  EXPECT_THAT(problems_of(c), HasSubstr("expected an even width, got 5"));
  c = good, c.qk_norm = nn::QkNorm::head, c.head_dim = 1;
  EXPECT_THAT(problems_of(c),
              HasSubstr("qk_norm: normalising a head of one number leaves nothing but its sign"));
  c.qk_norm = nn::QkNorm::width;
  EXPECT_EQ(problems_of(c), "");
  c = good, c.moe.top_k = 5;
  EXPECT_THAT(problems_of(c), HasSubstr("moe.top_k: expected at most the 4 experts of a layer, got 5"));
  c = good, c.blocks.clear();
  EXPECT_THAT(problems_of(c), HasSubstr("blocks"));
}

}  // namespace
}  // namespace ziggurat::model
