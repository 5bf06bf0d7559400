// The GPT-2 split rule at its edges. Expected pieces follow from the published regular expression.
#include <gtest/gtest.h>

#include <ziggurat/core/philox.h>
#include <ziggurat/data/gpt2_split.h>

namespace ziggurat {
namespace {

using Pieces = std::vector<std::string_view>;

struct SplitCase {
  std::string_view text;
  Pieces pieces;
};

class SplitRule : public ::testing::TestWithParam<SplitCase> {};

TEST_P(SplitRule, CutsAsPublished) { EXPECT_EQ(gpt2_split(GetParam().text), GetParam().pieces); }

using namespace std::string_view_literals;
INSTANTIATE_TEST_SUITE_P(
    Data, SplitRule,
    ::testing::Values(
        SplitCase{"", {}}, SplitCase{" ", {" "}}, SplitCase{"\t", {"\t"}},
        SplitCase{"Hello World!", {"Hello", " World", "!"}},
        // Contractions: lower case only, and never after a space.
        SplitCase{"don't I'LL we'Re", {"don", "'t", " I", "'", "LL", " we", "'", "Re"}},
        SplitCase{"'s't're've'm'll'd", {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}},
        SplitCase{"x 's", {"x", " '", "s"}}, SplitCase{"''s", {"''", "s"}}, SplitCase{"'l", {"'", "l"}},
        SplitCase{"'", {"'"}}, SplitCase{"'r", {"'", "r"}},
        // White space: the last space joins the next word, any other last one stands alone.
        SplitCase{"x  \n  y", {"x", "  \n ", " y"}}, SplitCase{"a\r\n\r\nb", {"a", "\r\n\r", "\n", "b"}},
        SplitCase{"   ", {"   "}}, SplitCase{"a   ", {"a", "   "}}, SplitCase{"a\tb", {"a", "\t", "b"}},
        SplitCase{"a\u00a0b", {"a", "\u00a0", "b"}}, SplitCase{"a \u3000b", {"a", " ", "\u3000", "b"}},
        SplitCase{"a \u2003 b", {"a", " \u2003", " b"}},
        // Not white space: zero-width space, byte-order mark, control characters 1C-1F.
        SplitCase{"a\u200bb", {"a", "\u200b", "b"}}, SplitCase{"a \ufeff", {"a", " \ufeff"}},
        SplitCase{"a\x1c"
                  "b",
                  {"a", "\x1c", "b"}},
        // White space that unicode calls so: next line, ogham, line separator.
        SplitCase{"a\u0085\u1680\u2028 b", {"a", "\u0085\u1680\u2028", " b"}},
        // Numbers of all three kinds (Nd, Nl, No); digits and letters part.
        SplitCase{"12\u00bd\u00b2\u2167\u0661", {"12\u00bd\u00b2\u2167\u0661"}},
        SplitCase{"abc123 456.7", {"abc", "123", " 456", ".", "7"}},
        // A combining mark is neither letter nor number and parts a word.
        SplitCase{"e\u0301a", {"e", "\u0301", "a"}},
        SplitCase{"\u00e9t\u00e9 \u65e5\u672c", {"\u00e9t\u00e9", " \u65e5\u672c"}},
        SplitCase{"\U0001F44B\U0001F30D!", {"\U0001F44B\U0001F30D!"}},
        // Broken UTF-8 is "other": a lone continuation byte, an overlong form, a cut-off character, a
        // surrogate.
        SplitCase{"a\x80z", {"a", "\x80", "z"}}, SplitCase{"a\xc0\xafz", {"a", "\xc0\xaf", "z"}},
        SplitCase{"a\xe6\x97", {"a", "\xe6\x97"}}, SplitCase{"\xed\xa0\x80z", {"\xed\xa0\x80", "z"}},
        SplitCase{"a\0b"sv, {"a", "\0"sv, "b"}}, SplitCase{"<|endoftext|>", {"<|", "endoftext", "|>"}}));

// Text of the characters that matter to the rule, and any bytes.
std::string random_text(uint64_t seed, size_t characters) {
  static const std::vector<std::string> kParts = {
      "a",  "Z",      "s",      "l",      "'",      "'s",     "7",      " ", " ",    "\n",
      "\t", "\u00a0", "\u3000", "\u0301", "\u00e9", "\u65e5", "\u00bd", ".", "\x80", "\xe6"};
  const Philox random(seed, Purpose::test);
  std::string text;
  for (size_t i = 0; i < characters; ++i) text += kParts[random.bits(i) % kParts.size()];
  return text;
}

TEST(SplitRuleProperty, PiecesAreNotEmptyAndJoinToTheText) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const std::string text = random_text(seed, 100);
    std::string joined;
    for (const std::string_view piece : gpt2_split(text)) {
      ASSERT_FALSE(piece.empty());
      joined += piece;
    }
    ASSERT_EQ(joined, text);
  }
}

TEST(SplitRuleProperty, ASafeCutChangesNoPiece) {
  int cuts = 0;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const std::string text = random_text(seed, 60);
    const size_t cut = gpt2_safe_cut(text);
    ASSERT_GT(cut, 0u);
    cuts += cut < text.size();
    Pieces halves = gpt2_split(std::string_view(text).substr(0, cut));
    for (const auto piece : gpt2_split(std::string_view(text).substr(cut))) halves.push_back(piece);
    ASSERT_EQ(halves, gpt2_split(text)) << text;
  }
  EXPECT_GT(cuts, 400);
  EXPECT_EQ(gpt2_safe_cut("abcdef"), 6u);
}

}  // namespace
}  // namespace ziggurat
