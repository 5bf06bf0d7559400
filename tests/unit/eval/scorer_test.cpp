// Scores against one pass over every request alone.
#include <algorithm>
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/eval/batch_plan.h"
#include "tests/support/bare_model.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/eval/scorer.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::eval {
namespace {

using test::BareModel;
using ziggurat::testing::error_of;

constexpr int64_t kVocabulary = 90;  // of 96 with the padding

std::vector<std::string> padded() { return {"model.vocab_size=90"}; }

// By hand: cut from the left, every prediction from one pass over the whole.
Score naive(BareModel& bare, const TokenRequest& request, int64_t length) {
  std::vector<int32_t> all = request.context;
  all.insert(all.end(), request.continuation.begin(), request.continuation.end());
  if (std::ssize(all) > length + 1) all.erase(all.begin(), all.end() - (length + 1));
  const std::vector<double> logits = bare.recomputed({all.begin(), all.end() - 1});
  const int64_t padded_vocabulary = bare.layout.padded_vocab();
  Score score;
  for (size_t i = all.size() - request.continuation.size(); i < all.size(); ++i) {
    const double* row = logits.data() + static_cast<int64_t>(i - 1) * padded_vocabulary;
    double sum = 0;
    for (int64_t v = 0; v < kVocabulary; ++v) sum += std::exp(row[v]);
    score.log_likelihood += row[all[i]] - std::log(sum);
    score.greedy = score.greedy && std::max_element(row, row + kVocabulary) - row == all[i];
  }
  return score;
}

std::vector<int32_t> greedy(BareModel& bare, std::vector<int32_t> text, int64_t tokens) {
  std::vector<int32_t> written;
  for (int64_t i = 0; i < tokens; ++i) {
    const std::vector<double> logits = bare.recomputed(text);
    const double* row = logits.data() + (std::ssize(text) - 1) * bare.layout.padded_vocab();
    written.push_back(static_cast<int32_t>(std::max_element(row, row + kVocabulary) - row));
    text.push_back(written.back());
  }
  return written;
}

std::vector<int32_t> some(int64_t n, uint64_t seed) { return test::random_tokens(n, kVocabulary, seed); }

// Alone, choices of one context, branches that begin with another, equal requests, too long ones, and one
// whose continuation is greedy.
std::vector<TokenRequest> requests_for(BareModel& bare) {
  std::vector<TokenRequest> requests = {
      {some(9, 1), some(1, 2)}, {some(9, 1), some(1, 3)}, {some(20, 4), some(5, 5)}};
  for (uint64_t i = 0; i < 7; ++i) requests.push_back({some(12, 6), some(1 + int64_t(i) % 4, 7 + i)});
  TokenRequest longer = requests.back();
  longer.continuation.push_back(3);
  requests.push_back(longer);
  requests.push_back(longer);
  requests.push_back({some(60, 20), some(20, 21)});
  requests.push_back({some(2, 22), some(24, 23)});
  requests.push_back({some(1, 24), some(3, 25)});
  requests.push_back({some(6, 26), greedy(bare, some(6, 26), 4)});
  return requests;
}

constexpr int64_t kLength = 24;

ScorerOptions small(int64_t batch_tokens = 32, bool copies = false) {
  return {.length = kLength, .batch_tokens = batch_tokens, .sequences = 4, .copies = copies};
}

TEST(Scorer, ScoresAsOnePassOverEveryRequest) {
  const OneThread one_thread;
  for (const char* name : {"350m_dense", "pr_moe", "modern_moe"}) {
    BareModel bare(test::tiny_model(name, padded()), DType::f64);
    const std::vector<TokenRequest> requests = requests_for(bare);
    Scorer scorer(bare.model, bare.world, small());
    const std::vector<Score> scores = scorer.score(requests);
    ASSERT_EQ(scores.size(), requests.size());
    int greedy_ones = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      const Score want = naive(bare, requests[i], kLength);
      EXPECT_NEAR(scores[i].log_likelihood, want.log_likelihood, 1e-10) << name << " request " << i;
      EXPECT_EQ(scores[i].greedy, want.greedy) << name << " request " << i;
      greedy_ones += want.greedy;
    }
    EXPECT_GE(greedy_ones, 1);
    EXPECT_TRUE(scores.back().greedy);
  }
}

// To the bit, in f32 and bf16, from weights as they lie and from copies: in any batches, alone or among
// others, on any number of ranks.
struct Computed {
  DType dtype;
  bool copies;
};
void PrintTo(const Computed& c, std::ostream* os) {
  *os << to_string(c.dtype) << (c.copies ? ", copies" : "");
}

class ScorerBits : public ::testing::TestWithParam<Computed> {};

TEST_P(ScorerBits, DependOnNeitherBatchNorRanks) {
  const auto [dtype, copies] = GetParam();
  const OneThread one_thread;
  for (const char* name : {"350m_dense", "pr_moe", "modern_moe"}) {
    BareModel bare(test::tiny_model(name, padded()), dtype);
    const std::vector<TokenRequest> requests = requests_for(bare);
    const std::vector<Score> want = Scorer(bare.model, bare.world, small(32, copies)).score(requests);
    const std::vector<Score> wide = Scorer(bare.model, bare.world, small(1000, copies)).score(requests);
    const std::vector<Score> narrow = Scorer(bare.model, bare.world, small(3, copies)).score(requests);
    Scorer alone(bare.model, bare.world, small(32, copies));
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(wide[i], want[i]) << name << i;
      EXPECT_EQ(narrow[i], want[i]) << name << i;
      EXPECT_EQ(alone.score({&requests[i], 1})[0], want[i]) << name << i;
    }
    for (const int ranks : {2, 4}) {
      run_on_threads(ranks, [&](Communicator& world) {
        BareModel shared(test::tiny_model(name, padded()), dtype, &world);
        const std::vector<Score> scores = Scorer(shared.model, world, small(32, copies)).score(requests);
        for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(scores[i], want[i]) << name << i;
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Weights, ScorerBits,
                         ::testing::Values(Computed{DType::f32, false}, Computed{DType::f32, true},
                                           Computed{DType::bf16, false}, Computed{DType::bf16, true}));

// Products in another order, and in bf16 fewer roundings.
TEST(Scorer, ScoresFromCopiesOfWeightsAreThoseFromWeightsAsTheyLie) {
  const OneThread one_thread;
  for (const auto& [dtype, near] : {std::pair{DType::f32, 1e-4}, std::pair{DType::bf16, 0.1}}) {
    BareModel bare(test::tiny_model("350m_dense", padded()), dtype);
    const std::vector<TokenRequest> requests = requests_for(bare);
    const std::vector<Score> want = Scorer(bare.model, bare.world, small()).score(requests),
                             got = Scorer(bare.model, bare.world, small(32, true)).score(requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_NEAR(got[i].log_likelihood, want[i].log_likelihood,
                  near * static_cast<double>(requests[i].continuation.size()))
          << to_string(dtype) << i;
    }
  }
}

TEST(Scorer, DropsNothing) {
  const OneThread one_thread;
  std::vector<std::string> dropping = padded();
  dropping.insert(dropping.end(), {"model.moe.eval_capacity_factor=0.25", "model.moe.min_capacity=1"});
  BareModel free(test::tiny_model("pr_moe", padded()), DType::f32),
      tight(test::tiny_model("pr_moe", dropping), DType::f32);
  const std::vector<TokenRequest> requests = requests_for(free);
  EXPECT_EQ(Scorer(tight.model, tight.world, small()).score(requests),
            Scorer(free.model, free.world, small()).score(requests));
}

TEST(Scorer, WritesWhatGreedyDecodingWrites) {
  const OneThread one_thread;
  BareModel bare(test::tiny_model("pr_moe", padded()), DType::f32);
  std::vector<std::vector<int32_t>> contexts;
  for (int64_t i = 0; i < 40; ++i) contexts.push_back(some(1 + i % 9, static_cast<uint64_t>(i)));
  contexts.push_back(some(50, 99));  // is cut to its end
  std::vector<std::vector<int32_t>> want;
  for (const std::vector<int32_t>& context : contexts) {
    want.push_back(greedy(
        bare, {context.end() - std::min<int64_t>(std::ssize(context), kLength - 5), context.end()}, 5));
  }
  const int32_t end = want[3][1];
  for (std::vector<int32_t>& text : want) {
    if (const auto found = std::find(text.begin(), text.end(), end); found != text.end()) {
      text.erase(found + 1, text.end());
    }
  }
  const auto ended = [&](size_t, std::span<const int32_t> text) { return text.back() == end; };
  EXPECT_EQ(Scorer(bare.model, bare.world, small()).generate(contexts, 5, ended), want);
  for (const int ranks : {2, 4}) {
    run_on_threads(ranks, [&](Communicator& world) {
      BareModel shared(test::tiny_model("pr_moe", padded()), DType::f32, &world);
      EXPECT_EQ(Scorer(shared.model, world, small()).generate(contexts, 5, ended), want);
    });
  }
}

TEST(Scorer, RefusesWhatItCannotScore) {
  BareModel bare(test::tiny_model("350m_dense", padded()), DType::f32);
  Scorer scorer(bare.model, bare.world, small());
  const auto score = [&](std::vector<TokenRequest> requests) { scorer.score(requests); };
  error_of(ErrorKind::argument, [&] { score({{{}, {1}}}); });
  error_of(ErrorKind::argument, [&] { score({{{1}, {}}}); });
  error_of(ErrorKind::data, [&] { score({{{1}, some(kLength + 1, 3)}}); });
  error_of(ErrorKind::data, [&] { score({{{1}, {90}}}); });  // padding
  error_of(ErrorKind::data, [&] { score({{{1, 90, 1}, {1}}}); });
  error_of(ErrorKind::data, [&] { score({{{-1}, {1}}}); });
  error_of(ErrorKind::argument, [&] { Scorer(bare.model, bare.world, {.length = 65}); });
  EXPECT_TRUE(scorer.score({}).empty());
  for (nn::ParamEntry& entry : bare.store.entries()) {
    if (entry.spec.name == "final_norm.weight") entry.param.value.data<float>()[0] = NAN;
  }
  error_of(ErrorKind::numeric, [&] { score({{{1}, {2}}}); });
}

TEST(BatchPlan, ReadsASharedContextOnce) {
  // BoolQ: two answers of a token each are one pass over the passage.
  const std::vector<TokenRequest> boolq = {{some(10, 1), {4}}, {some(10, 1), {5}}};
  const std::vector<Batch> one = plan_batches(boolq, {.length = 64, .tokens = 100, .sequences = 8});
  ASSERT_EQ(one.size(), 1u);
  ASSERT_EQ(one[0].size(), 1u);
  EXPECT_EQ(one[0][0].shared.tokens.size(), 10u);
  EXPECT_TRUE(one[0][0].branches.empty());

  // TriviaQA: the question once, and of aliases that begin alike the longest.
  const std::vector<TokenRequest> trivia = {
      {some(10, 1), {4, 5}}, {some(10, 1), {4, 5, 6}}, {some(10, 1), {7, 8, 9}}, {some(10, 1), {4}}};
  const std::vector<Batch> two = plan_batches(trivia, {.length = 64, .tokens = 100, .sequences = 8});
  ASSERT_EQ(two.at(0).size(), 1u);
  EXPECT_EQ(two[0][0].shared.tokens.size(), 10u);
  EXPECT_EQ(two[0][0].branches.size(), 2u);
  EXPECT_EQ(two[0][0].branch_tokens(), 4);  // 7 8, and 4 5
}

TEST(BatchPlan, KeepsItsLimits) {
  std::vector<TokenRequest> requests;
  for (uint64_t i = 0; i < 50; ++i) requests.push_back({some(1 + int64_t(i) % 7, i), some(3, i + 100)});
  for (uint64_t i = 0; i < 20; ++i) requests.push_back({some(8, 3), some(4, i + 200)});
  size_t targets = 0;
  for (const Batch& batch : plan_batches(requests, {.length = 64, .tokens = 30, .sequences = 5})) {
    int64_t shared = 0, branches = 0, sequences = 0;
    for (const Group& group : batch) {
      shared += std::ssize(group.shared.tokens);
      branches += group.branch_tokens();
      sequences += group.sequences();
      targets += group.shared.targets.size();
      for (const Path& branch : group.branches) targets += branch.targets.size();
    }
    EXPECT_LE(shared, 30);
    EXPECT_LE(branches, 30);
    EXPECT_LE(sequences, 5);
  }
  EXPECT_EQ(targets, 50u * 3 + 20u * 4);
}

}  // namespace
}  // namespace ziggurat::eval
