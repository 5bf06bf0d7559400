#include <array>
#include <cmath>

#include <gtest/gtest.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/infer/generate.h>

namespace ziggurat::infer {
namespace {

TEST(SampleToken, TemperatureZeroTakesTheLikeliest) {
  const SamplingOptions greedy{.temperature = 0, .top_k = 0};
  EXPECT_EQ(sample_token({0.1, 2.0, -3.0, 1.9}, greedy, 0), 1);
  EXPECT_EQ(sample_token({2.0, 2.0}, greedy, 0), 0);  // ties: the first
}

std::vector<double> shares(const std::vector<double>& logits, const SamplingOptions& options, int64_t draws) {
  std::vector<double> counts(logits.size(), 0.0);
  for (int64_t i = 0; i < draws; ++i) {
    counts[static_cast<size_t>(sample_token(logits, options, i))] += 1.0 / static_cast<double>(draws);
  }
  return counts;
}

TEST(SampleToken, FollowsTheDistribution) {
  constexpr int64_t kDraws = 20'000;
  const std::vector<double> p = {0.5, 0.3, 0.15, 0.05};
  std::vector<double> logits;
  for (const double v : p) logits.push_back(std::log(v) + 7);
  const auto near = [](double got, double want) {
    EXPECT_NEAR(got, want, 5 * std::sqrt(want * (1 - want) / kDraws));  // five standard deviations
  };
  const auto all = shares(logits, {.temperature = 1, .top_k = 0}, kDraws);
  for (size_t i = 0; i < p.size(); ++i) near(all[i], p[i]);

  const auto two = shares(logits, {.temperature = 1, .top_k = 2}, kDraws);
  near(two[0], 0.5 / 0.8);
  EXPECT_EQ(two[2] + two[3], 0.0);

  const auto cold = shares(logits, {.temperature = 0.5, .top_k = 0}, kDraws);  // p^2, normalised
  near(cold[0], 0.25 / (0.25 + 0.09 + 0.0225 + 0.0025));
}

TEST(SampleToken, IsAFunctionOfSeedAndPosition) {
  const std::vector<double> logits(50, 0.0);
  SamplingOptions options{.temperature = 1, .top_k = 0, .seed = 1};
  std::vector<int32_t> first, again, other;
  for (int64_t i = 0; i < 20; ++i) first.push_back(sample_token(logits, options, i));
  for (int64_t i = 0; i < 20; ++i) again.push_back(sample_token(logits, options, i));
  options.seed = 2;
  for (int64_t i = 0; i < 20; ++i) other.push_back(sample_token(logits, options, i));
  EXPECT_EQ(first, again);
  EXPECT_NE(first, other);
}

class Generate : public ::testing::Test {
 protected:
  static model::ModelConfig config() {
    model::ModelConfig c;
    c.vocab_size = 30, c.vocab_multiple = 32, c.max_sequence = 8, c.hidden = 16, c.heads = 2,
    c.init_std = 0.5;
    c.blocks = {{.repeat = 1, .pattern = {{}, {.ffn = model::FfnKind::moe, .experts = 2}}}};
    return c;
  }
  Generate() : groups_(*self_, ParallelPlan(1, {1})), model_(config(), store_, groups_) { store_.finalize(); }

  std::unique_ptr<Communicator> self_ = make_self_communicator();
  ProcessGroups groups_;
  nn::ParamStore store_{{.trainable = false}};
  model::Gpt model_;
  Arena activations_{"a", 1 << 26}, gradients_{"g", 1}, workspace_{"w", 1 << 26};
  Stream stream_;
  Tape tape_{activations_, gradients_, workspace_, stream_};
};

TEST_F(Generate, GoesOnPastTheWindowWithTheModelsOwnChoices) {
  const SamplingOptions greedy{.max_new_tokens = 12, .temperature = 0};
  std::vector<int32_t> told;
  const std::vector<int32_t> prompt = {3, 1, 4};
  const auto added = generate(model_, tape_, prompt, 8, greedy, [&](int32_t t) { told.push_back(t); });
  ASSERT_EQ(added.size(), 12u);
  EXPECT_EQ(told, added);

  // Token by token: the arg-max of the logits after the last 8 tokens, padding excluded.
  std::vector<int32_t> text = prompt;
  for (const int32_t token : added) {
    const size_t length = std::min<size_t>(8, text.size());
    tape_.begin({.training = false});
    const Tensor logits = model_
                              .next_token_logits(tape_, {text.data() + text.size() - length, nullptr, 1,
                                                         static_cast<int64_t>(length)})
                              .value();
    const float* l = logits.data<float>();
    EXPECT_EQ(token, std::max_element(l, l + 30) - l);
    text.push_back(token);
  }
}

TEST_F(Generate, StopsAtTheStopToken) {
  SamplingOptions options{.max_new_tokens = 12, .temperature = 1, .top_k = 0};
  const auto free = generate(model_, tape_, {3}, 8, options);
  options.stop_token = free[4];
  const auto stopped = generate(model_, tape_, {3}, 8, options);
  const auto first = std::find(free.begin(), free.end(), free[4]);
  EXPECT_EQ(stopped, std::vector<int32_t>(free.begin(), first));
}

TEST_F(Generate, NeedsAPrompt) {
  ziggurat::testing::error_of(ErrorKind::argument, [&] { generate(model_, tape_, {}, 8, {}); });
}

}  // namespace
}  // namespace ziggurat::infer
