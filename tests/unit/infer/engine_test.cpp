// Texts that are written side by side, in any mix, are those that are written alone.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "tests/support/allocation_counter.h"
#include "tests/support/bare_model.h"
#include "tests/support/op_test.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/infer/engine.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::infer {
namespace {

using ziggurat::testing::error_of;

struct Written {
  std::vector<int32_t> tokens, scored;
  std::vector<double> logprobs;
  std::vector<std::vector<std::pair<int32_t, double>>> alternatives;
  std::optional<EndReason> ended;
  bool operator==(const Written&) const = default;
};

class Texts {
 public:
  explicit Texts(Engine& engine) : engine_(engine) {}

  void step() {
    engine_.step({.token =
                      [this](int64_t id, int32_t token, bool of_prompt, const Likelihood* likelihood) {
                        Written& text = written[id];
                        (of_prompt ? text.scored : text.tokens).push_back(token);
                        if (likelihood == nullptr) return;
                        text.logprobs.push_back(likelihood->logprob);
                        text.alternatives.push_back(likelihood->alternatives);
                      },
                  .end = [this](int64_t id, EndReason reason) { written[id].ended = reason; }});
  }
  void finish() {
    while (!engine_.idle()) step();
  }

  std::map<int64_t, Written> written;

 private:
  Engine& engine_;
};

Written alone(const model::Gpt& model, EngineOptions options, TextRequest request) {
  options.texts = 1;
  options.cache_tokens = 0;
  Engine engine(model, options);
  Texts texts(engine);
  const int64_t id = request.id;
  engine.submit(std::move(request));
  texts.finish();
  return texts.written[id];
}

// Of all kinds; some begin alike.
TextRequest any_request(int64_t id, int64_t vocabulary, int64_t window, std::mt19937& random) {
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  TextRequest r{.id = id, .text = below(3)};
  const std::vector<int32_t> common = test::random_tokens(window + 5, vocabulary, 1);
  const auto own = test::random_tokens(1 + below(window + 4), vocabulary, 100 + static_cast<uint64_t>(id));
  r.prompt.assign(common.begin(), common.begin() + below(2) * below(window));
  r.prompt.insert(r.prompt.end(), own.begin(), own.end());
  r.max_new_tokens = below(12) + (below(4) == 0 ? window : 0);
  if (below(3) == 0) r.stop_token = static_cast<int32_t>(below(vocabulary));
  r.sampling = {.temperature = below(2) == 0 ? 0.0 : 1.5,
                .top_k = below(2) * below(9),
                .top_p = below(3) == 0 ? 0.8 : 1.0,
                .repetition_penalty = below(4) == 0 ? 1.3 : 1.0,
                .seed = static_cast<uint64_t>(below(3))};
  if (below(3) == 0) r.alternatives = below(3);
  r.scores_prompt = below(4) == 0 && std::ssize(r.prompt) <= window;
  r.shares_prefix = below(5) != 0;
  return r;
}

class EngineWrites : public ::testing::TestWithParam<std::string> {};

// Learned and rotary positions, dense layers and experts; a cache so small that texts are preempted, texts
// that come and are cancelled at any time, in steps of few rows.
TEST_P(EngineWrites, TheSameTextsInAnyMix) {
  const OneThread one_thread;
  constexpr int64_t kWindow = 40;
  test::BareModel bare(test::tiny_model(GetParam(), {"model.max_sequence=64", "model.init_std=0.3"}),
                       DType::f32);
  const int64_t vocabulary = bare.layout.vocab_size;
  int64_t preempted = 0, shared = 0, cancelled = 0;
  for (uint32_t round = 0; round < 3; ++round) {
    std::mt19937 random(round);
    const EngineOptions options{.window = kWindow,
                                .cache_tokens = 16 * (4 + static_cast<int64_t>(random() % 12)),
                                .texts = 1 + static_cast<int64_t>(random() % 9),
                                .step_rows = 1 + static_cast<int64_t>(random() % 30)};
    Engine engine(bare.model, options);
    Texts texts(engine);
    std::map<int64_t, TextRequest> requests;
    for (int64_t id = 0; id < 24; ++id) {
      requests[id] = any_request(id, vocabulary, kWindow, random);
      engine.submit(requests[id]);
      if (random() % 8 == 0) engine.cancel(static_cast<int64_t>(random()) % (id + 1));
      for (auto steps = random() % 4; steps > 0; --steps) texts.step();
    }
    texts.finish();
    for (const auto& [id, request] : requests) {
      const Written &got = texts.written[id], want = alone(bare.model, options, request);
      ASSERT_TRUE(got.ended.has_value()) << id;
      if (*got.ended == EndReason::cancelled) {
        ++cancelled;
        ASSERT_LE(got.tokens.size(), want.tokens.size());
        EXPECT_TRUE(std::equal(got.tokens.begin(), got.tokens.end(), want.tokens.begin())) << id;
      } else {
        EXPECT_EQ(got, want) << "text " << id << " of round " << round;
      }
    }
    preempted += engine.counts().preempted;
    shared += engine.counts().shared_tokens;
    EXPECT_EQ(engine.counts().blocks, 0) << "blocks are held by nobody";
  }
  EXPECT_GT(preempted, 0);
  EXPECT_GT(shared, 0);
  EXPECT_GT(cancelled, 0);
}

INSTANTIATE_TEST_SUITE_P(Models, EngineWrites, ::testing::Values("350m_dense", "pr_moe", "modern_moe"),
                         [](const auto& test) { return test.param; });

// The likelihoods are the model's, as one pass over the whole text has them.
TEST(Engine, TellsLikelihoods) {
  test::BareModel bare(test::tiny_model("pr_moe"), DType::f32);
  const int64_t vocabulary = bare.layout.vocab_size, width = bare.layout.padded_vocab();
  Engine engine(bare.model, {});
  Texts texts(engine);
  const std::vector<int32_t> prompt = test::random_tokens(20, vocabulary);
  engine.submit({.id = 5, .prompt = prompt, .max_new_tokens = 3, .alternatives = 2, .scores_prompt = true});
  texts.finish();
  const Written& text = texts.written[5];
  EXPECT_EQ(text.ended, EndReason::length);
  EXPECT_EQ(text.scored, std::vector<int32_t>(prompt.begin() + 1, prompt.end()));
  std::vector<int32_t> all = prompt;
  all.insert(all.end(), text.tokens.begin(), text.tokens.end());
  ASSERT_EQ(text.logprobs.size(), all.size() - 1);
  const std::vector<double> logits = bare.recomputed(all);
  for (size_t i = 0; i + 1 < all.size(); ++i) {
    const double* row = logits.data() + static_cast<int64_t>(i) * width;
    double sum = 0;
    for (int64_t v = 0; v < vocabulary; ++v) sum += std::exp(row[v]);
    EXPECT_NEAR(text.logprobs[i], row[all[i + 1]] - std::log(sum), 1e-4);
    ASSERT_EQ(text.alternatives[i].size(), 2u);
    EXPECT_NEAR(text.alternatives[i][0].second, *std::max_element(row, row + vocabulary) - std::log(sum),
                1e-4);
  }
}

// With rotary positions a text slides, and reads nothing twice; with learned ones it reads half a window
// anew.
TEST(Engine, ReadsNothingTwiceWhereItSlides) {
  const OneThread one_thread;
  for (const std::string positions : {"rope", "learned"}) {
    test::BareModel bare(test::tiny_model("350m_dense", {"model.positions=" + positions}), DType::f32);
    Engine engine(bare.model, {.window = 32, .texts = 1});
    Texts texts(engine);
    engine.submit({.id = 0, .prompt = {1, 2, 3}, .max_new_tokens = 200});
    texts.finish();
    EXPECT_EQ(texts.written[0].tokens.size(), 200u);
    const int64_t read = engine.counts().rows, once = 3 + 200 - 1;
    if (positions == "rope") {
      EXPECT_EQ(read, once);
      EXPECT_EQ(engine.counts().steps, 200);
    } else {
      EXPECT_GT(read, once);
      EXPECT_LE(read, 2 * once);
    }
  }
}

// The definition of sliding: attention over the last `window` positions in every layer. Of one layer that is
// the same as reading the window alone, but for a shift of all positions, which rotary attention does not
// see.
TEST(Engine, SlidesAsTheDefinitionSays) {
  const OneThread one_thread;
  constexpr size_t kWindow = 12;
  test::BareModel bare(
      test::tiny_model("350m_dense", {"model.positions=rope", "model.init_std=0.3",
                                      "model.blocks=[{repeat: 1, pattern: [{ffn: dense}]}]"}),
      DType::f64);
  Engine engine(bare.model, {.window = kWindow, .texts = 1, .step_rows = 5});
  Texts texts(engine);
  engine.submit({.id = 0,
                 .prompt = {1, 2, 3, 4, 5, 6, 7},
                 .max_new_tokens = 40,
                 .sampling = {.temperature = 0},
                 .alternatives = 0});
  texts.finish();
  std::vector<int32_t> text = {1, 2, 3, 4, 5, 6, 7};
  for (size_t i = 0; i < texts.written[0].tokens.size(); ++i) {
    const std::vector<int32_t> seen(text.end() - static_cast<int64_t>(std::min(kWindow, text.size())),
                                    text.end());
    const std::vector<double> logits = bare.recomputed(seen);
    const double* row = logits.data() + (std::ssize(seen) - 1) * bare.layout.padded_vocab();
    double sum = 0;
    for (int64_t v = 0; v < bare.layout.vocab_size; ++v) sum += std::exp(row[v]);
    const int32_t token = texts.written[0].tokens[i];
    EXPECT_EQ(token, std::max_element(row, row + bare.layout.vocab_size) - row) << "token " << i;
    EXPECT_NEAR(texts.written[0].logprobs[i], row[token] - std::log(sum), 1e-9);
    text.push_back(token);
  }
}

TEST(Engine, AStepAllocatesNothing) {
  for (const char* name : {"350m_dense", "pr_moe", "modern_moe"}) {
    test::BareModel bare(test::tiny_model(name), DType::f32);
    Engine engine(bare.model, {.texts = 3});
    const TextEvents events{.token = [](int64_t, int32_t, bool, const Likelihood*) {}};
    for (int64_t id = 0; id < 3; ++id) {
      engine.submit({.id = id, .prompt = {1, 2, 3}, .max_new_tokens = 60, .text = id});
    }
    for (int i = 0; i < 20; ++i) engine.step(events);
    const int64_t before = test::allocation_count();
    for (int i = 0; i < 30; ++i) engine.step(events);
    EXPECT_EQ(test::allocation_count(), before) << name;
  }
}

// Weights that give no finite logits: the step fails, and nothing of it has happened.
TEST(Engine, AStepThatFailsCanBeTriedAgain) {
  const OneThread one_thread;
  test::BareModel bare(test::tiny_model("pr_moe"), DType::f32);
  Engine engine(bare.model, {.texts = 2});
  Texts texts(engine);
  const TextRequest request{.id = 0, .prompt = {1, 2, 3}, .max_new_tokens = 8};
  engine.submit(request);
  texts.step();
  texts.step();
  float& weight = bare.store.find("final_norm.weight").param.value.data<float>()[0];
  const float good = weight;
  weight = NAN;
  for (int i = 0; i < 3; ++i) error_of(ErrorKind::numeric, [&] { texts.step(); });
  EXPECT_EQ(texts.written[0].tokens.size(), 2u);
  weight = good;
  texts.finish();
  EXPECT_EQ(texts.written[0], alone(bare.model, {}, request));
}

TEST(Engine, SeveralShareOneModel) {
  test::BareModel bare(test::tiny_model("pr_moe"), DType::f32);
  const model::Gpt& model = bare.model;
  const TextRequest request{.id = 0, .prompt = {1, 2, 3}, .max_new_tokens = 30};
  const Written want = alone(model, {}, request);
  std::vector<Written> got(3);
  std::vector<std::thread> threads;
  for (Written& text : got) {
    threads.emplace_back([&] {
      set_thread_count(1);
      text = alone(model, {}, request);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Written& text : got) EXPECT_EQ(text, want);

  // Their loads are told by each of them, and the model's own statistics are left alone.
  Engine engine(model, {});
  Texts texts(engine);
  engine.submit(request);
  texts.finish();
  for (const moe::MoeSums& layer : engine.executor().loads()) {
    EXPECT_TRUE(layer.tokens == 32 || layer.tokens == 30) << layer.tokens;  // the last one: of wanted rows
  }
  for (const moe::MoeStats* layer : model.moe_stats()) EXPECT_EQ(layer->read(bare.stream).tokens, 0);
}

}  // namespace
}  // namespace ziggurat::infer
