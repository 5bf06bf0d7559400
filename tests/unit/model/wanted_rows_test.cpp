// A forward of which some rows are wanted against one of which all are.
#include <gtest/gtest.h>

#include "tests/support/bare_model.h"
#include "tests/support/op_test.h"

namespace ziggurat::model {
namespace {

using Rows = std::vector<int32_t>;

std::vector<double> hidden_of(test::BareModel& bare, TokenBatch batch, std::optional<Rows> wanted) {
  bare.tape.begin({.training = false});
  if (wanted) batch.wanted = *wanted;
  return test::to_doubles(bare.model.forward(bare.tape, batch).value());
}

TEST(WantedRows, AreThoseOfAForwardOfAll) {
  constexpr int64_t kSequences = 2, kLength = 12;
  for (const char* name : {"350m_dense", "350m_moe128", "pr_moe", "modern_moe"}) {
    for (const char* scope : {"micro_batch", "sequence"}) {
      test::BareModel bare(test::tiny_model(name, {fmt::format("model.moe.balance_scope={}", scope)}),
                           DType::f64);
      const Rows tokens = test::random_tokens(kSequences * kLength, bare.layout.vocab_size);
      const TokenBatch batch{.tokens = tokens.data(), .sequences = kSequences, .length = kLength};
      const std::vector<double> all = hidden_of(bare, batch, {});
      const int64_t width = bare.layout.hidden;
      ASSERT_EQ(std::ssize(all), kSequences * kLength * width);
      for (const Rows& wanted :
           {Rows{}, Rows{23}, Rows{0, 11, 12}, Rows{1, 2, 3, 5, 7, 8, 9, 13, 16, 20, 22}}) {
        std::vector<double> want;
        for (const int32_t row : wanted) {
          want.insert(want.end(), all.begin() + row * width, all.begin() + (row + 1) * width);
        }
        test::expect_within(hidden_of(bare, batch, wanted), want, 1e-12 * test::largest(all),
                            fmt::format("{}, {} rows", name, wanted.size()));
      }
    }
  }
}

TEST(WantedRows, AreForInferenceOnly) {
  test::BareModel bare(test::tiny_model("350m_dense"), DType::f32);
  const Rows tokens = {1, 2, 3}, last = {2};
  bare.tape.begin({.training = true});
  EXPECT_THROW(
      bare.model.forward(bare.tape, {.tokens = tokens.data(), .sequences = 1, .length = 3, .wanted = last}),
      Error);
}

}  // namespace
}  // namespace ziggurat::model
