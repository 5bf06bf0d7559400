#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/expert_blocks.h>

namespace ziggurat::emulation {
namespace {

class EmulatedExpertBlocks : public EmulatedTest {};

// Of 90 tokens with two choices each some are dropped, and the last expert has none.
TEST_F(EmulatedExpertBlocks, AreTheCpus) {
  constexpr int64_t kTokens = 90, kChoices = 2, kExperts = 5, kCapacity = 40;
  std::vector<int32_t> expert, row_of_choice(kTokens * kChoices, -1), offsets{0}, token_of_row, choice_of_row;
  for (int32_t i = 0; i < kTokens * kChoices; ++i) expert.push_back(i * 7 % (kExperts - 1));
  for (int32_t e = 0; e < kExperts; ++e) {
    for (int32_t i = 0; i < kTokens * kChoices; ++i) {
      if (expert[static_cast<size_t>(i)] != e) continue;
      if (std::ssize(token_of_row) - offsets.back() == kCapacity - e) continue;
      row_of_choice[static_cast<size_t>(i)] = static_cast<int32_t>(token_of_row.size());
      token_of_row.push_back(i / static_cast<int32_t>(kChoices));
      choice_of_row.push_back(i % static_cast<int32_t>(kChoices));
    }
    offsets.push_back(static_cast<int32_t>(token_of_row.size()));
  }
  std::vector<int32_t> place(expert.size()), token(kExperts * kCapacity), choice(token.size());
  const DeviceArray<int32_t> d_offsets(offsets), d_expert(expert), d_row(row_of_choice),
      d_token_of(token_of_row), d_choice_of(choice_of_row), d_place(place.size()), d_token(token.size()),
      d_choice(choice.size());
  Stream cpu{Device::cpu}, cuda{Device::cuda};
  kernels::expert_blocks<Device::cpu>(
      {kTokens, kChoices, kExperts, kCapacity, offsets.data(), expert.data(), row_of_choice.data(),
       token_of_row.data(), choice_of_row.data(), place.data(), token.data(), choice.data()},
      cpu);
  kernels::expert_blocks<Device::cuda>(
      {kTokens, kChoices, kExperts, kCapacity, d_offsets.data(), d_expert.data(), d_row.data(),
       d_token_of.data(), d_choice_of.data(), d_place.data(), d_token.data(), d_choice.data()},
      cuda);
  EXPECT_EQ(d_place.get(), place);
  EXPECT_EQ(d_token.get(), token);
  EXPECT_EQ(d_choice.get(), choice);
  int64_t taken = 0;
  for (int32_t i = 0; i < kTokens * kChoices; ++i) {
    const int32_t at = place[static_cast<size_t>(i)];
    EXPECT_EQ(at < 0, row_of_choice[static_cast<size_t>(i)] < 0);
    if (at < 0) continue;
    ++taken;
    EXPECT_EQ(at / kCapacity, expert[static_cast<size_t>(i)]);
    EXPECT_EQ(token[static_cast<size_t>(at)] * kChoices + choice[static_cast<size_t>(at)], i);
  }
  EXPECT_EQ(std::count_if(token.begin(), token.end(), [](int32_t t) { return t >= 0; }), taken);
}

}  // namespace
}  // namespace ziggurat::emulation
