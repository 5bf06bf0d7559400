// A model that cannot learn one batch by heart cannot learn. Also the whole trainer in a dozen lines.
#include <cmath>

#include <gtest/gtest.h>

#include <ziggurat/comm/thread.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/objective/next_token.h>
#include <ziggurat/optim/optimizer.h>
#include <ziggurat/parallel/gradient_reducer.h>

namespace ziggurat {
namespace {

constexpr int64_t kSequences = 4, kLength = 16, kTokens = kSequences * kLength;

model::ModelConfig tiny(const std::vector<model::BlockSpec>& layers) {
  model::ModelConfig c;
  c.vocab_size = 32, c.vocab_multiple = 32, c.max_sequence = kLength, c.hidden = 32, c.heads = 4,
  c.init_std = 0.1;
  c.blocks = {{.repeat = 1, .pattern = layers}};
  return c;
}

// Nats a token on a batch of random tokens, after so many steps on it.
double loss_after(int steps, const model::ModelConfig& config, DType dtype) {
  std::vector<int32_t> tokens(kTokens), targets(kTokens);
  const Philox rng(1, Purpose::test);
  for (size_t i = 0; i < kTokens; ++i) tokens[i] = static_cast<int32_t>(rng.bits(i) % 32);
  for (size_t i = 0; i < kTokens; ++i) targets[i] = tokens[(i + 1) % kTokens];

  double loss = 0;
  run_on_threads(1, [&](Communicator& world) {
    const ProcessGroups groups(world, ParallelPlan(1, config.expert_parallel_sizes()));
    nn::ParamStore store({.compute = dtype});
    const model::Gpt gpt(config, store, groups);
    objective::NextToken next_token(gpt);
    store.finalize();
    parallel::GradientReducer reducer(store, groups, 1);
    Optimizer optimizer(store, groups, {.weight_decay = 0});
    Arena activations("activations", 1 << 28), gradients("gradients", 1 << 28),
        workspace("workspace", 1 << 28);
    Stream stream;
    Tape tape(activations, gradients, workspace, stream);
    for (int step = 0; step < steps; ++step) {
      reducer.begin_step(stream);
      tape.begin({.step = step, .token_weight = 1.0 / kTokens});
      const model::TokenBatch batch{tokens.data(), targets.data(), kSequences, kLength};
      loss = next_token.loss(tape, batch).data<double>()[0] / kTokens;
      tape.backward();
      reducer.reduce(stream);
      optimizer.update(5e-3, reducer.squared_norms(stream), {}, workspace, stream);
    }
  });
  return loss;
}

TEST(Overfitting, DenseModelLearnsABatchByHeart) {
  const model::ModelConfig config = tiny({{}, {}});
  EXPECT_NEAR(loss_after(1, config, DType::f32), std::log(32.0), 1.0);
  EXPECT_LT(loss_after(150, config, DType::f32), 0.05);
  EXPECT_LT(loss_after(150, config, DType::bf16), 0.05);
}

TEST(Overfitting, PrMoeLearnsABatchByHeart) {
  const model::ModelConfig config = tiny({{},
                                          {.ffn = model::FfnKind::residual_moe, .experts = 2},
                                          {},
                                          {.ffn = model::FfnKind::residual_moe, .experts = 4}});
  EXPECT_NEAR(loss_after(1, config, DType::f32), std::log(32.0), 1.0);
  EXPECT_LT(loss_after(150, config, DType::f32), 0.05);
}

TEST(Overfitting, StandardMoeLearnsABatchByHeart) {
  model::ModelConfig config = tiny({{}, {.ffn = model::FfnKind::moe, .experts = 4}});
  config.moe.top_k = 2;
  config.moe.drop = moe::DropPolicy::none;
  EXPECT_LT(loss_after(150, config, DType::f32), 0.05);
}

}  // namespace
}  // namespace ziggurat
