// The BPE trainer against the algorithm's definition, on texts where pairs overlap and pieces are long.
#include <map>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/core/philox.h>
#include <ziggurat/data/bpe_trainer.h>
#include <ziggurat/data/gpt2_split.h>

namespace ziggurat {
namespace {

using Merges = std::vector<std::array<int32_t, 3>>;

// Counts all pairs anew before each merge and rewrites every piece: quadratic, and plainly right.
Merges merges_by_definition(std::string_view text, size_t count) {
  std::array<int32_t, 256> id_of_byte{};
  for (size_t i = 0; i < 256; ++i) id_of_byte[gpt2_byte_order()[i]] = static_cast<int32_t>(i);
  std::vector<std::vector<int32_t>> pieces;
  for (const std::string_view piece : gpt2_split(text)) {
    pieces.emplace_back();
    for (const char c : piece) pieces.back().push_back(id_of_byte[static_cast<uint8_t>(c)]);
  }
  Merges merges;
  for (auto merged = int32_t{256}; merges.size() < count; ++merged) {
    std::map<std::pair<int32_t, int32_t>, int64_t> pairs;
    for (const auto& piece : pieces) {
      for (size_t i = 0; i + 1 < piece.size(); ++i) ++pairs[{piece[i], piece[i + 1]}];
    }
    const auto best = std::max_element(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) {
      return a.second != b.second ? a.second < b.second : a.first > b.first;
    });
    const auto [left, right] = best->first;
    merges.push_back({left, right, merged});
    for (auto& piece : pieces) {
      std::vector<int32_t> rewritten;
      for (size_t i = 0; i < piece.size(); ++i) {
        const bool here = i + 1 < piece.size() && piece[i] == left && piece[i + 1] == right;
        rewritten.push_back(here ? merged : piece[i]);
        i += here;
      }
      piece = std::move(rewritten);
    }
  }
  return merges;
}

Merges merges_of_trainer(std::string_view text, size_t count) {
  BpeTrainer trainer;
  trainer.add_text(text);
  size_t calls = 0;
  const BpeVocab vocab = trainer.train(static_cast<int32_t>(257 + count), [&] { ++calls; });
  EXPECT_EQ(calls, count);
  Merges merges;
  for (const auto& merge : vocab.merges) merges.push_back({merge.left, merge.right, merge.merged});
  return merges;
}

std::string random_text(uint64_t seed, const std::vector<std::string>& alphabet, size_t length) {
  const Philox random(seed, Purpose::test);
  std::string text;
  for (size_t i = 0; i < length; ++i) text += alphabet[random.bits(i) % alphabet.size()];
  return text;
}

TEST(BpeTrainer, MergesWhatTheDefinitionMerges) {
  struct Case {
    std::vector<std::string> alphabet;
    size_t merges;
  };
  const std::vector<Case> cases = {{{"a"}, 9},
                                   {{"a", "b"}, 40},                   // one long piece whose pairs overlap
                                   {{"a", "b", " "}, 40},              // many short pieces
                                   {{" ", "\n", "1", "x", "'s"}, 20},  // all kinds of pieces
                                   {{"\u4e00", "\u3042", "\U0001F600", "e\u0301", "\xff", " "}, 20}};
  for (const auto& [alphabet, merges] : cases) {
    for (uint64_t seed = 0; seed < 4; ++seed) {
      const std::string text = random_text(seed, alphabet, 1500);
      EXPECT_EQ(merges_of_trainer(text, merges), merges_by_definition(text, merges))
          << alphabet.size() << " kinds of symbols, seed " << seed;
    }
  }
}

}  // namespace
}  // namespace ziggurat
