// Token by token with a cache against one pass over the whole text, for every kind of layer that configs
// have.
#include <algorithm>
#include <filesystem>

#include <gtest/gtest.h>

#include "tests/support/allocation_counter.h"
#include "tests/support/bare_model.h"
#include "tests/support/op_test.h"
#include "tests/support/source_dir.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/infer/decoder.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::infer {
namespace {

using ziggurat::testing::error_of;

using Bare = test::BareModel;

model::ModelConfig tiny(const std::string& name, std::vector<std::string> overrides = {}) {
  return test::tiny_model(name, overrides);
}

std::vector<int32_t> text_of(int64_t n, int64_t vocabulary, uint64_t seed = 5) {
  return test::random_tokens(n, vocabulary, seed);
}

// Every norm, product and softmax on the way through the model adds up a row.
double tolerance(const model::ModelConfig& c, DType dtype, int64_t length) {
  const auto layers = static_cast<int64_t>(c.layers().size());
  return test::random_walk(dtype, layers * (5 * c.hidden + c.ffn_width() + length) + 2 * c.hidden);
}

// The logits after a sequence's last of these tokens, which it reads anew or in addition.
std::vector<double> append(Decoder& decoder, int64_t sequence, std::span<const int32_t> tokens) {
  const std::vector<int32_t> sequences(tokens.size(), static_cast<int32_t>(sequence));
  const auto last = static_cast<int32_t>(tokens.size()) - 1;
  std::vector<double> logits;
  decoder.read(sequences, tokens, {&last, 1}, [&](size_t, const Tensor& l) { logits = test::to_doubles(l); });
  return logits;
}
std::vector<double> prefill(Decoder& decoder, int64_t sequence, std::span<const int32_t> tokens) {
  decoder.truncate(sequence, 0);
  return append(decoder, sequence, tokens);
}
// One token each; the logits of sequence i in row i.
std::vector<std::vector<double>> step(Decoder& decoder, std::span<const int32_t> sequences,
                                      std::span<const int32_t> tokens) {
  std::vector<int32_t> rows;
  for (size_t i = 0; i < tokens.size(); ++i) rows.push_back(static_cast<int32_t>(i));
  std::vector<std::vector<double>> logits;
  decoder.read(sequences, tokens, rows, [&](size_t, const Tensor& l) {
    for (int64_t i = 0; i < l.dim(0); ++i) logits.push_back(test::to_doubles(l.rows(i, i + 1)));
  });
  return logits;
}

std::vector<std::string> tiny_configs() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(test::source_dir() + "/configs/tiny")) {
    names.push_back(entry.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Logits after a prompt's last token and after each later one equal those of one pass over everything.
void expect_same_as_recomputed(const model::ModelConfig& config, DType dtype, int64_t length,
                               int64_t prefill_tokens) {
  constexpr int64_t kPrompt = 11;
  Bare bare(config, dtype);
  const std::vector<int32_t> text = text_of(length, config.vocab_size);
  const std::vector<double> want = bare.recomputed(text);
  const int64_t vocab = bare.layout.padded_vocab();
  const double near = tolerance(config, dtype, length) * test::largest(want);

  Decoder decoder(bare.model, 2, length, prefill_tokens);
  const int32_t sequence = 1;
  for (int64_t t = kPrompt - 1; t < length; ++t) {
    const std::vector<double> got = t < kPrompt
                                        ? prefill(decoder, sequence, std::span(text).first(kPrompt))
                                        : append(decoder, sequence, {&text[static_cast<size_t>(t)], 1});
    EXPECT_EQ(decoder.length(sequence), t + 1);
    const std::vector<double> now(want.begin() + t * vocab, want.begin() + (t + 1) * vocab);
    test::expect_within(got, now, near, fmt::format("{} position {}", to_string(dtype), t));
    if (dtype != DType::bf16) {  // greedy choices, too
      EXPECT_EQ(std::max_element(got.begin(), got.end()) - got.begin(),
                std::max_element(now.begin(), now.end()) - now.begin());
    }
  }
}

class DecodesAsRecomputed : public ::testing::TestWithParam<std::string> {};

TEST_P(DecodesAsRecomputed, InF64AndF32) {
  const OneThread one_thread;  // waking threads for tiny products takes nearly all the time
  for (const DType dtype : {DType::f64, DType::f32}) {
    expect_same_as_recomputed(tiny(GetParam()), dtype, 32, 512);
  }
}

INSTANTIATE_TEST_SUITE_P(TinyConfigs, DecodesAsRecomputed, ::testing::ValuesIn(tiny_configs()),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

TEST(Decoder, SharesKeyHeadsReadsPromptsInPiecesAndUntiesItsHead) {
  const OneThread one_thread;
  const model::ModelConfig config =
      tiny("modern_moe", {"model.kv_heads=2", "model.head_dim=12", "model.tied_embeddings=false"});
  for (const DType dtype : {DType::f64, DType::f32}) expect_same_as_recomputed(config, dtype, 32, 3);
}

// Experts are left out: bf16 may round a token over to another one.
TEST(Decoder, InBf16) {
  const OneThread one_thread;
  expect_same_as_recomputed(tiny("350m_dense"), DType::bf16, 32, 512);
}

TEST(Decoder, SequencesOfAnyLengthsDoNotMeet) {
  Bare bare(tiny("pr_moe"), DType::f32);
  const std::vector<int32_t> text = text_of(40, 90, 1), other = text_of(40, 90, 2);
  Decoder decoder(bare.model, 3, 64), alone(bare.model, 1, 64);
  prefill(decoder, 0, std::span(text).first(3));
  prefill(decoder, 2, std::span(other).first(20));
  decoder.copy(0, 1);
  prefill(alone, 0, std::span(text).first(3));
  for (size_t t = 3; t < 10; ++t) {
    const auto want = append(alone, 0, {&text[t], 1});
    const std::vector<int32_t> sequences = {1, 2, 0}, tokens = {text[t], other[t + 17], text[t]};
    const auto logits = step(decoder, sequences, tokens);
    for (const size_t row : {0, 2}) {
      test::expect_within(logits[row], want, tolerance(bare.layout, DType::f32, 10) * test::largest(want),
                          "among others");
    }
  }
  EXPECT_EQ(decoder.length(2), 27);
}

// Experts for one row in two at most, were there drops: a text reads as alone beside others and in any
// pieces.
TEST(Decoder, DropsNothingWhateverTheRouterIsToldForEvaluation) {
  const OneThread one_thread;
  for (const std::string option :
       {"drop=random", "drop=position", "drop=probability", "drop=none", "slot_order=token_first",
        "capacity_rule=without_top_k", "balance_scope=sequence", "top_k=2", "jitter=0.1",
        "choice_noise=rsample"}) {
    Bare bare(tiny("pr_moe", {"model.moe.eval_capacity_factor=0.5", "model.moe.capacity_factor=0.5",
                              "model.moe.min_capacity=0", "model.moe." + option}),
              DType::f64);
    const std::vector<int32_t> text = text_of(24, 90, 1), other = text_of(24, 90, 2);
    Decoder together(bare.model, 3, 64, 512), pieces(bare.model, 1, 64, 5), steps(bare.model, 1, 64);
    const auto want = prefill(together, 0, text);
    const double near = tolerance(bare.layout, DType::f64, 24) * test::largest(want);
    test::expect_within(prefill(pieces, 0, text), want, near, option + ", in pieces");
    std::vector<double> last;
    for (const int32_t token : text) last = append(steps, 0, {&token, 1});
    test::expect_within(last, want, near, option + ", token by token");

    prefill(together, 1, other);
    together.copy(1, 2);
    const std::vector<int32_t> sequences = {1, 2, 0}, tokens = {other[0], other[0], text[0]};
    test::expect_within(step(together, sequences, tokens)[2], append(steps, 0, {&text[0], 1}), near,
                        option + ", beside others");
  }
}

TEST(Decoder, ReadsOnFromWhereItWasCut) {
  Bare bare(tiny("modern_moe"), DType::f32);
  const std::vector<int32_t> text = text_of(12, 90);
  Decoder decoder(bare.model, 1, 64);
  prefill(decoder, 0, std::span(text).first(8));
  const auto first = append(decoder, 0, {&text[8], 1});
  append(decoder, 0, {&text[9], 1});
  decoder.truncate(0, 8);
  EXPECT_EQ(append(decoder, 0, {&text[8], 1}), first);
}

// Copies share what they have in common until one of them writes there.
TEST(Decoder, CopiesGoTheirOwnWays) {
  const OneThread one_thread;
  Bare bare(tiny("modern_moe"), DType::f32);
  const std::vector<int32_t> text = text_of(60, 90, 1), other = text_of(60, 90, 2);
  for (const size_t cut : {1, 15, 16, 17, 20, 32, 40}) {
    Decoder together(bare.model, 3, 60, 512, Reproducible::strict),
        alone(bare.model, 1, 60, 512, Reproducible::strict);
    prefill(together, 0, std::span(text).first(40));
    together.copy(0, 1);
    together.copy(1, 2);
    together.truncate(2, static_cast<int64_t>(cut));
    append(together, 2, std::span(other).subspan(cut, 10));
    append(together, 0, std::span(text).subspan(40, 9));
    append(together, 1, std::span(other).subspan(40, 5));
    const auto goes_on = [&](int64_t copy, std::vector<int32_t> whole) {
      append(alone, 0, std::span(whole));
      const auto want = append(alone, 0, {&text[0], 1});
      alone.truncate(0, 0);
      EXPECT_EQ(append(together, copy, {&text[0], 1}), want) << "copy " << copy << ", cut at " << cut;
    };
    goes_on(0, {text.begin(), text.begin() + 49});
    std::vector<int32_t> second(text.begin(), text.begin() + 40);
    second.insert(second.end(), other.begin() + 40, other.begin() + 45);
    goes_on(1, second);
    std::vector<int32_t> third(text.begin(), text.begin() + static_cast<int64_t>(cut));
    third.insert(third.end(), other.begin() + static_cast<int64_t>(cut),
                 other.begin() + static_cast<int64_t>(cut) + 10);
    goes_on(2, third);
  }
}

TEST(Decoder, AStepAllocatesNothing) {
  for (const char* name : {"350m_dense", "pr_moe", "modern_moe"}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      Bare bare(tiny(name), dtype);
      Decoder decoder(bare.model, 2, 64);
      const std::vector<int32_t> sequences = {0, 1}, tokens = {3, 4}, rows = {0, 1};
      const Decoder::LogitsVisitor nothing = [](size_t, const Tensor&) {};
      prefill(decoder, 0, tokens);
      prefill(decoder, 1, tokens);
      for (int i = 0; i < 16; ++i) decoder.read(sequences, tokens, rows, nothing);  // two blocks each
      const int64_t before = test::allocation_count();
      for (int i = 0; i < 5; ++i) decoder.read(sequences, tokens, rows, nothing);
      EXPECT_EQ(test::allocation_count(), before) << name;
    }
  }
}

// A forward that fails has read nothing: here a token that does not exist.
TEST(Decoder, LengthsAreThoseOfWhatWasRead) {
  const OneThread one_thread;
  Bare bare(tiny("350m_dense"), DType::f32);
  Decoder decoder(bare.model, 2, 32);
  const std::vector<int32_t> text = text_of(20, 90), broken = {1, 2, 100'000};
  prefill(decoder, 0, std::span(text).first(10));
  const auto want = append(decoder, 0, {&text[10], 1});
  decoder.truncate(0, 10);
  error_of(ErrorKind::data, [&] { append(decoder, 0, broken); });
  EXPECT_EQ(decoder.length(0), 10);
  EXPECT_EQ(append(decoder, 0, {&text[10], 1}), want);
}

TEST(DecoderMisuse, IsRefused) {
  Bare bare(tiny("350m_dense"), DType::f32);
  error_of(ErrorKind::argument, [&] { Decoder(bare.model, 1, 65); });  // max_sequence is 64
  error_of(ErrorKind::argument, [&] { Decoder(bare.model, 0, 8); });
  Decoder decoder(bare.model, 2, 4);
  const std::vector<int32_t> text = {1, 2, 3, 4, 5}, both = {0, 1};
  error_of(ErrorKind::argument, [&] { append(decoder, 0, text); });
  prefill(decoder, 0, std::span(text).first(4));
  prefill(decoder, 1, std::span(text).first(2));
  error_of(ErrorKind::argument, [&] { step(decoder, both, std::span(text).first(2)); });  // 0 is full
  EXPECT_EQ(decoder.length(1), 2);
  error_of(ErrorKind::argument, [&] { step(decoder, both, std::span(text).first(1)); });
  error_of(ErrorKind::argument, [&] { decoder.truncate(1, 3); });
}

}  // namespace
}  // namespace ziggurat::infer
