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
    const Tensor logits = t < kPrompt ? decoder.prefill(sequence, std::span(text).first(kPrompt))
                                      : decoder.step({&sequence, 1}, {&text[static_cast<size_t>(t)], 1});
    EXPECT_EQ(decoder.length(sequence), t + 1);
    const std::vector<double> now(want.begin() + t * vocab, want.begin() + (t + 1) * vocab),
        got = test::to_doubles(logits);
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
  decoder.prefill(0, std::span(text).first(3));
  decoder.prefill(2, std::span(other).first(20));
  decoder.copy(0, 1);
  alone.prefill(0, std::span(text).first(3));
  for (size_t t = 3; t < 10; ++t) {
    const int32_t zero = 0;
    const auto want = test::to_doubles(alone.step({&zero, 1}, {&text[t], 1}));
    const std::vector<int32_t> sequences = {1, 2, 0}, tokens = {text[t], other[t + 17], text[t]};
    const Tensor logits = decoder.step(sequences, tokens);
    for (const int64_t row : {0, 2}) {
      test::expect_within(test::to_doubles(logits.rows(row, row + 1)), want,
                          tolerance(bare.layout, DType::f32, 10) * test::largest(want), "among others");
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
    const int32_t zero = 0;
    const auto want = test::to_doubles(together.prefill(0, text));
    const double near = tolerance(bare.layout, DType::f64, 24) * test::largest(want);
    test::expect_within(test::to_doubles(pieces.prefill(0, text)), want, near, option + ", in pieces");
    steps.prefill(0, std::span(text).first(1));
    Tensor logits;
    for (size_t t = 1; t < text.size(); ++t) logits = steps.step({&zero, 1}, {&text[t], 1});
    test::expect_within(test::to_doubles(logits), want, near, option + ", token by token");

    together.prefill(1, other);
    together.copy(1, 2);
    const std::vector<int32_t> sequences = {1, 2, 0}, tokens = {other[0], other[0], text[0]};
    const Tensor beside = together.step(sequences, tokens);
    const auto last = test::to_doubles(beside.rows(2, 3));
    test::expect_within(last, test::to_doubles(steps.step({&zero, 1}, {&text[0], 1})), near,
                        option + ", beside others");
  }
}

TEST(Decoder, ReadsOnFromWhereItWasCut) {
  Bare bare(tiny("modern_moe"), DType::f32);
  const std::vector<int32_t> text = text_of(12, 90);
  Decoder decoder(bare.model, 1, 64);
  const int32_t zero = 0;
  decoder.prefill(0, std::span(text).first(8));
  const auto first = test::to_doubles(decoder.step({&zero, 1}, {&text[8], 1}));
  decoder.step({&zero, 1}, {&text[9], 1});
  decoder.truncate(0, 8);
  EXPECT_EQ(test::to_doubles(decoder.step({&zero, 1}, {&text[8], 1})), first);
}

TEST(Decoder, AStepAllocatesNothing) {
  for (const char* name : {"350m_dense", "pr_moe", "modern_moe"}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      Bare bare(tiny(name), dtype);
      Decoder decoder(bare.model, 2, 64);
      const std::vector<int32_t> sequences = {0, 1}, tokens = {3, 4};
      decoder.prefill(0, tokens);
      decoder.prefill(1, tokens);
      decoder.step(sequences, tokens);
      const int64_t before = test::allocation_count();
      for (int i = 0; i < 5; ++i) decoder.step(sequences, tokens);
      EXPECT_EQ(test::allocation_count(), before) << name;
    }
  }
}

TEST(DecoderMisuse, IsRefused) {
  Bare bare(tiny("350m_dense"), DType::f32);
  error_of(ErrorKind::argument, [&] { Decoder(bare.model, 1, 65); });  // max_sequence is 64
  error_of(ErrorKind::argument, [&] { Decoder(bare.model, 0, 8); });
  Decoder decoder(bare.model, 2, 4);
  const std::vector<int32_t> text = {1, 2, 3, 4, 5}, both = {0, 1}, none;
  error_of(ErrorKind::argument, [&] { decoder.prefill(0, none); });
  error_of(ErrorKind::argument, [&] { decoder.prefill(0, text); });
  decoder.prefill(0, std::span(text).first(4));
  decoder.prefill(1, std::span(text).first(2));
  error_of(ErrorKind::argument, [&] { decoder.step(both, std::span(text).first(2)); });  // 0 is full
  EXPECT_EQ(decoder.length(1), 2);
  error_of(ErrorKind::argument, [&] { decoder.step(both, std::span(text).first(1)); });
  error_of(ErrorKind::argument, [&] { decoder.step(none, none); });
  error_of(ErrorKind::argument, [&] { decoder.truncate(1, 3); });
}

}  // namespace
}  // namespace ziggurat::infer
