#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/own_tokens.h>

namespace ziggurat::emulation {
namespace {

struct OwnCase {
  int64_t tokens, top_k, experts, first, own;
};
void PrintTo(const OwnCase& c, std::ostream* os) {
  *os << c.own << " tokens from " << c.first << " of " << c.tokens << ", top-" << c.top_k << " of "
      << c.experts;
}

// What a router leaves: rows by expert, of which every fifth choice was dropped.
struct Tables {
  explicit Tables(const OwnCase& c) {
    offsets.push_back(0);
    for (int64_t e = 0; e < c.experts; ++e) {
      for (int64_t choice = 0; choice < c.top_k; ++choice) {
        for (int64_t t = 0; t < c.tokens; ++t) {
          if ((t * 7 + choice) % c.experts != e || (t + choice) % 5 == 4) continue;
          token_of_row.push_back(static_cast<int32_t>(t));
          choice_of_row.push_back(static_cast<int32_t>(choice));
        }
      }
      offsets.push_back(static_cast<int32_t>(token_of_row.size()));
    }
  }
  std::vector<int32_t> offsets, token_of_row, choice_of_row;
};

class EmulatedOwnTokens : public EmulatedTest, public testing::WithParamInterface<OwnCase> {};

TEST_P(EmulatedOwnTokens, AreTheCpus) {
  const OwnCase c = GetParam();
  const Tables all(c);
  const int64_t rows = std::min(c.own * c.top_k, static_cast<int64_t>(all.token_of_row.size()));
  constexpr int32_t kNever = 77;
  std::vector<int32_t> counts(static_cast<size_t>(c.experts), kNever),
      offsets(static_cast<size_t>(c.experts + 1), kNever),
      row_of_choice(static_cast<size_t>(c.own * c.top_k), kNever), token(static_cast<size_t>(rows), kNever),
      choice(static_cast<size_t>(rows), kNever);
  const DeviceArray<int32_t> all_offsets(all.offsets), all_token(all.token_of_row),
      all_choice(all.choice_of_row), d_counts(counts), d_offsets(offsets), d_row_of_choice(row_of_choice),
      d_token(token), d_choice(choice);
  Stream cpu{Device::cpu}, cuda{Device::cuda};
  kernels::own_tokens<Device::cpu>({c.first, c.own, c.top_k, c.experts, all.offsets.data(),
                                    all.token_of_row.data(), all.choice_of_row.data(), counts.data(),
                                    offsets.data(), row_of_choice.data(), rows, token.data(), choice.data()},
                                   cpu);
  kernels::own_tokens<Device::cuda>(
      {c.first, c.own, c.top_k, c.experts, all_offsets.data(), all_token.data(), all_choice.data(),
       d_counts.data(), d_offsets.data(), d_row_of_choice.data(), rows, d_token.data(), d_choice.data()},
      cuda);
  EXPECT_EQ(d_counts.get(), counts);
  EXPECT_EQ(d_offsets.get(), offsets);
  EXPECT_EQ(d_row_of_choice.get(), row_of_choice);
  EXPECT_EQ(d_token.get(), token);
  EXPECT_EQ(d_choice.get(), choice);
}

// Experts of more rows than a block has threads; tokens of one rank of several.
INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedOwnTokens,
                         testing::Values(OwnCase{8, 1, 4, 0, 8}, OwnCase{8, 1, 4, 4, 4},
                                         OwnCase{40, 2, 3, 10, 20}, OwnCase{900, 2, 2, 300, 300},
                                         OwnCase{600, 1, 40, 0, 200}));

}  // namespace
}  // namespace ziggurat::emulation
