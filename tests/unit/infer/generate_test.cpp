#include <array>
#include <cmath>

#include <gtest/gtest.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/infer/generate.h>

namespace ziggurat::infer {
namespace {

int32_t sample_token(const std::vector<double>& logits, const SamplingOptions& options, int64_t position,
                     const std::vector<TokenRange>& allowed = {}) {
  Sampler sampler(static_cast<int64_t>(logits.size()), allowed);
  return sampler(logits.data(), options, {.position = position});
}

TEST(Sampler, TemperatureZeroTakesTheLikeliest) {
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

TEST(Sampler, FollowsTheDistribution) {
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

  const auto nucleus = shares(logits, {.temperature = 1, .top_k = 0, .top_p = 0.7}, kDraws);
  near(nucleus[0], 0.5 / 0.8);  // two tokens hold 0.7 of the probability
  EXPECT_EQ(nucleus[2] + nucleus[3], 0.0);
  const auto both = shares(logits, {.temperature = 1, .top_k = 2, .top_p = 0.6}, kDraws);
  EXPECT_EQ(both[0], shares(logits, {.temperature = 0}, kDraws)[0]);  // 0.5 / 0.8 is more than 0.6

  const auto cold = shares(logits, {.temperature = 0.5, .top_k = 0}, kDraws);  // p^2, normalised
  near(cold[0], 0.25 / (0.25 + 0.09 + 0.0225 + 0.0025));
}

TEST(Sampler, IsAFunctionOfSeedAndPosition) {
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

// Whatever the options, what is drawn from some tokens is what is drawn from a vocabulary of just these.
TEST(Sampler, DrawsAllowedTokensOnly) {
  const std::vector<double> logits = {9, 0.5, 8, 0.2, 0.9, 7, 0.6, 9, 9};
  const std::vector<int32_t> allowed = {1, 3, 4, 6};
  std::vector<double> rest;
  for (const int32_t id : allowed) rest.push_back(logits[static_cast<size_t>(id)]);
  for (const double temperature : {0.0, 0.7, 2.0}) {
    for (const int64_t top_k : {0, 1, 2, 3, 4, 40}) {
      for (const double top_p : {0.3, 0.8, 1.0}) {
        const SamplingOptions options{.temperature = temperature, .top_k = top_k, .top_p = top_p};
        std::vector<int32_t> want, got;
        for (int64_t i = 0; i < 50; ++i) {
          want.push_back(allowed[static_cast<size_t>(sample_token(rest, options, i))]);
        }
        const std::vector<TokenRange> ids = {{1, 2}, {3, 5}, {6, 7}, {20, 30}};  // the last: past the end
        for (int64_t i = 0; i < 50; ++i) got.push_back(sample_token(logits, options, i, ids));
        EXPECT_EQ(got, want) << temperature << " " << top_k << " " << top_p;
      }
    }
  }
}

TEST(Sampler, TheAllowedTokensAreTextAndTheStopToken) {
  const auto below_400 = [](int32_t id) { return id < 400; };
  EXPECT_EQ(allowed_tokens(4096, -1, below_400), (std::vector<TokenRange>{{0, 400}}));
  EXPECT_EQ(allowed_tokens(100, -1, below_400), (std::vector<TokenRange>{{0, 100}}));
  const auto odd = [](int32_t id) { return id % 2 == 1; };
  EXPECT_EQ(allowed_tokens(6, 4, odd), (std::vector<TokenRange>{{1, 2}, {3, 6}}));
  EXPECT_EQ(allowed_tokens(6, 9, odd), (std::vector<TokenRange>{{1, 2}, {3, 4}, {5, 6}}));
}

TEST(Sampler, RefusesLogitsThatAreNotFinite) {
  for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    for (const double temperature : {0.0, 1.0}) {
      const std::vector<double> logits = {1, bad, 2};
      const std::string message = ziggurat::testing::error_of(
          ErrorKind::numeric, [&] { sample_token(logits, {.temperature = temperature}, 0); });
      EXPECT_NE(message.find("1 of the model's 3 logits"), std::string::npos) << message;
      const std::vector<float> single(logits.begin(), logits.end());
      ziggurat::testing::error_of(ErrorKind::numeric,
                                  [&] { Sampler(3)(single.data(), {.temperature = temperature}, {}); });
    }
  }
}

// As transformers' RepetitionPenaltyLogitsProcessor: seen tokens' logits are divided, negative ones
// multiplied.
TEST(Sampler, TokensThatTheTextHasBecomeLessLikely) {
  const std::vector<float> logits = {2.0f, 3.0f, -1.0f, 1.9f};
  Sampler sampler(4);
  const auto greedy = [&](double penalty, std::vector<int32_t> seen) {
    return sampler(logits.data(), {.temperature = 0, .repetition_penalty = penalty},
                   {.position = 0, .text = 0, .seen = seen});
  };
  EXPECT_EQ(greedy(1, {1, 1, 1}), 1);
  EXPECT_EQ(greedy(1.4, {1}), 1);  // 2.14 is more than 2
  EXPECT_EQ(greedy(1.4, {1, 1, 1}), 1) << "once, however often the text has it";
  EXPECT_EQ(greedy(1.6, {1}), 0);
  EXPECT_EQ(greedy(1.6, {1, 0}), 3);
  Sampler negative(2);
  const std::vector<double> below = {-1.0, -1.5};
  EXPECT_EQ(negative(below.data(), {.temperature = 0, .repetition_penalty = 2}, {0, 0, std::vector{0}}), 1);
  ziggurat::testing::error_of(ErrorKind::argument, [] { check_sampling({.repetition_penalty = 0}); });
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
  Generate() : groups_(*self_, ParallelPlan(1, {1})), model_(config(), store_, groups_) {
    store_.finalize();
    engine_ = std::make_unique<Engine>(model_, EngineOptions{.window = 8, .texts = 3});
  }

  std::unique_ptr<Communicator> self_ = make_self_communicator();
  ProcessGroups groups_;
  nn::ParamStore store_{{.trainable = false}};
  model::Gpt model_;
  std::unique_ptr<Engine> engine_;  // of the finished model
  Arena activations_{"a", 1 << 26}, gradients_{"g", 1}, workspace_{"w", 1 << 26};
  Stream stream_;
  Tape tape_{activations_, gradients_, workspace_, stream_};
};

// Token by token without a cache: the arg-max of the logits after what is seen, padding excluded. Positions
// are learned, so a text that has filled the window begins anew with its later half.
TEST_F(Generate, GoesOnPastTheWindowWithTheModelsOwnChoices) {
  const GenerateOptions greedy{.max_new_tokens = 12, .sampling = {.temperature = 0}};
  std::vector<std::vector<int32_t>> told(3);
  const std::vector<std::vector<int32_t>> prompts = {{3, 1, 4}, {1, 5, 9, 2, 6, 5, 3, 5, 8}, {3, 1, 4}};
  const auto added = generate(*engine_, prompts, greedy, [&](size_t i, int32_t t) { told[i].push_back(t); });
  EXPECT_EQ(told, added);
  for (size_t i = 0; i < prompts.size(); ++i) {
    ASSERT_EQ(added[i].size(), 12u);
    std::vector<int32_t> text = prompts[i];
    size_t length = std::min<size_t>(8, text.size());
    for (const int32_t token : added[i]) {
      tape_.begin({.training = false});
      const auto rows = static_cast<int64_t>(length);
      const Var hidden = model_.forward(
          tape_, {.tokens = text.data() + text.size() - length, .sequences = 1, .length = rows});
      const float* l = model_.logits(tape_, hidden, rows - 1, 1).value().data<float>();
      EXPECT_EQ(token, std::max_element(l, l + 30) - l);
      text.push_back(token);
      length = length == 8 ? 4 : length + 1;
    }
  }
}

TEST_F(Generate, StopsAtTheStopToken) {
  GenerateOptions options{.max_new_tokens = 12, .sampling = {.temperature = 1, .top_k = 0}};
  const std::vector<std::vector<int32_t>> prompts = {{3}, {7, 7}};
  const auto free = generate(*engine_, prompts, options);
  options.stop_token = free[0][4];
  const auto stopped = generate(*engine_, prompts, options);
  for (size_t i = 0; i < 2; ++i) {
    const auto first = std::find(free[i].begin(), free[i].end(), options.stop_token);
    EXPECT_EQ(stopped[i], std::vector<int32_t>(free[i].begin(), first));
  }
}

TEST_F(Generate, SamplesOfOnePromptAreDifferentTextsAndTheFirstIsTheTextAlone) {
  const GenerateOptions options{.max_new_tokens = 12, .sampling = {.temperature = 1, .top_k = 0}};
  const std::vector<std::vector<int32_t>> one = {{3, 4}}, three = {{3, 4}, {3, 4}, {3, 4}};
  const auto alone = generate(*engine_, one, options), samples = generate(*engine_, three, options);
  EXPECT_EQ(samples[0], alone[0]);
  EXPECT_NE(samples[1], samples[0]);
  EXPECT_NE(samples[2], samples[1]);
}

TEST_F(Generate, MoreTextsThanAreWrittenAtOnceWaitForTheirTurn) {
  const GenerateOptions options{.max_new_tokens = 5, .sampling = {.temperature = 1, .top_k = 0}};
  std::vector<std::vector<int32_t>> many;
  for (int32_t i = 0; i < 11; ++i) many.push_back({i, i + 1});
  const auto together = generate(*engine_, many, options);
  EXPECT_EQ(together.back().size(), 5u);
  Engine roomy(model_, {.window = 8, .texts = 11});
  EXPECT_EQ(generate(roomy, many, options), together);
}

TEST_F(Generate, MisuseIsNamed) {
  const auto with = [&](std::vector<std::vector<int32_t>> prompts, SamplingOptions options) {
    ziggurat::testing::error_of(ErrorKind::argument,
                                [&] { generate(*engine_, prompts, {.sampling = options}); });
    EXPECT_TRUE(engine_->idle());
  };
  with({{1}, {}}, {});
  with({{1}}, {.temperature = -1});
  with({{1}}, {.top_k = -1});
  with({{1}}, {.top_p = 0});
  with({{1, 30}}, {});
  with({{-1}}, {});
  const auto refused = [&](EngineOptions options) {
    ziggurat::testing::error_of(ErrorKind::argument, [&] { Engine(model_, options); });
  };
  refused({.allowed = {{30, 32}}});  // the vocabulary has 30
  refused({.window = 9});            // and the model 8 positions
  refused({.window = -1});
  refused({.cache_tokens = 8});  // less than a window
  refused({.texts = 0});
}

}  // namespace
}  // namespace ziggurat::infer
