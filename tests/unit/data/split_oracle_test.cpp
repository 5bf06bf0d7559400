// The splitter beside PCRE2 running the published pattern itself.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <algorithm>
#include <memory>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <pcre2.h>

#include "data/unicode_tables.h"
#include "data/utf8.h"
#include <ziggurat/core/philox.h>
#include <ziggurat/data/gpt2_split.h>

namespace ziggurat {
namespace {

class Pcre2Pattern {
 public:
  explicit Pcre2Pattern(const char* pattern)
      : code_(compile(pattern), pcre2_code_free),
        match_(pcre2_match_data_create_from_pattern(code_.get(), nullptr), pcre2_match_data_free) {
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
  }

  // Consecutive matches. `text` must be valid UTF-8.
  std::vector<std::string_view> split(std::string_view text) const {
    std::vector<std::string_view> pieces;
    for (size_t at = 0; at < text.size();) {
      const int found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                    PCRE2_NO_UTF_CHECK, match_.get(), nullptr);
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match_.get());
      if (found <= 0 || range[0] != at || range[1] <= at) {
        ADD_FAILURE() << "PCRE2 finds no piece at byte " << at;
        return pieces;
      }
      pieces.push_back(text.substr(range[0], range[1] - range[0]));
      at = range[1];
    }
    return pieces;
  }

 private:
  static pcre2_code* compile(const char* pattern) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
    if (code == nullptr) throw std::runtime_error("PCRE2 does not compile the pattern");
    return code;
  }
  std::unique_ptr<pcre2_code, void (*)(pcre2_code*)> code_;
  std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match_;
};

const Pcre2Pattern& published() {
  static const Pcre2Pattern pattern(
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)");
  return pattern;
}

std::string to_utf8(uint32_t c) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | (c >> shift & 0x3f)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xc0 | c >> 6), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xe0 | c >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xf0 | c >> 18), tail(12), tail(6), tail(0)};
}

std::string pcre2_unicode_version() {
  char version[64] = {};
  pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);
  return version;
}

// Code points that both know. Versions of Unicode differ by newly assigned characters: what PCRE2 calls
// unassigned is left out, and if PCRE2 is the newer one, also what our tables have no class for.
const std::vector<uint32_t>& known_code_points() {
  static const std::vector<uint32_t> all = [] {
    const Pcre2Pattern unassigned(R"(\p{Cn}|(?=.)..|.)");  // one character if unassigned, else the pair
    const bool pcre2_is_newer =
        std::stod(pcre2_unicode_version()) > std::stod(std::string(unicode_version()));
    std::vector<uint32_t> known;
    for (uint32_t c = 1; c < 0x110000; ++c) {
      if ((c >= 0xd800 && c < 0xe000) || (pcre2_is_newer && char_class(c) == CharClass::other)) continue;
      if (c == '\n' || unassigned.split(to_utf8(c) + "x").size() == 1) known.push_back(c);
    }
    return known;
  }();
  return all;
}

TEST(SplitOracle, EveryCharacterHasPcre2sClass) {
  EXPECT_GT(known_code_points().size(), 280000u) << "Unicode " << pcre2_unicode_version();
  for (const uint32_t c : known_code_points()) {
    for (const auto& [before, after] : {std::pair("a", "a"), {"1", "1"}, {" ", " x"}}) {
      const auto text = fmt::format("{}{}{}", before, to_utf8(c), after);
      ASSERT_EQ(gpt2_split(text), published().split(text)) << "U+" << std::hex << c;
    }
  }
}

// Texts of `n` characters. kind 0: any code point; 1: the characters that the rule speaks of; 2: words.
std::string random_text(uint64_t seed, int kind, size_t n) {
  static const std::vector<std::string> kHard = {"'s",     "'ll",    "'",      "\u2019",
                                                 " ",      "  ",     "\n",     "\r\n",
                                                 "\t",     "\u00a0", "\u3000", "\u2028",
                                                 "\u0085", "a",      "Z",      "7",
                                                 "\u00b2", "\u0301", "\u65e5", "\U0001F468\u200d\U0001F469",
                                                 "_",      ".",      "\ufeff", "s"};
  static const std::vector<std::string> kWords = {"the",
                                                  "don't",
                                                  "I'LL",
                                                  "we've",
                                                  "1859",
                                                  "(and)",
                                                  "said;",
                                                  "--",
                                                  "\n\n",
                                                  " ",
                                                  "\"No,\"",
                                                  "caf\u00e9",
                                                  "Mr.",
                                                  "unconstitutionalities",
                                                  "\u2014",
                                                  "x"
                                                  "y"
                                                  "z"};
  const Philox random(seed, Purpose::test);
  const auto& known = known_code_points();
  std::string text;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t bits = random.bits(i);
    if (kind == 0) text += to_utf8(known[bits % known.size()]);
    if (kind == 1) text += kHard[bits % kHard.size()];
    if (kind == 2) text += kWords[bits % kWords.size()] + (bits >> 20 & 7 ? " " : "");
  }
  return text;
}

TEST(SplitOracle, RandomTextsAreCutAsPcre2CutsThem) {
  for (const int kind : {0, 1, 2}) {
    for (uint64_t seed = 0; seed < 1000; ++seed) {
      const std::string text = random_text(seed, kind, 1 + seed % 200);
      ASSERT_EQ(gpt2_split(text), published().split(text)) << "kind " << kind << ", seed " << seed;
    }
  }
}

// Random bytes with broken UTF-8: outside the pattern's domain, but a broken byte behaves as any character
// that is neither letter, number nor space. So replacing each by one such character must not move a cut.
TEST(SplitOracle, BrokenBytesCountAsOtherCharacters) {
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    const Philox random(seed, Purpose::test);
    std::string bytes, replaced;
    for (uint64_t i = 0; i < 100; ++i) {
      const uint32_t bits = random.bits(i);
      bytes += bits & 256 ? static_cast<char>(bits & 127) : static_cast<char>(bits & 255);
    }
    std::vector<size_t> length_of;  // [character of `replaced`] -> bytes
    for (size_t i = 0; i < bytes.size();) {
      const Utf8Char c = decode_utf8(bytes.data() + i, bytes.data() + bytes.size());
      const bool unknown =
          !c.valid || c.code_point == 0 ||
          !std::binary_search(known_code_points().begin(), known_code_points().end(), c.code_point);
      if (unknown && c.valid && char_class(c.code_point) != CharClass::other) {
        bytes.erase(i, static_cast<size_t>(c.length));  // newly assigned
        continue;
      }
      replaced += unknown ? std::string("#") : to_utf8(c.code_point);
      length_of.push_back(static_cast<size_t>(c.length));
      i += static_cast<size_t>(c.length);
    }
    std::vector<size_t> expected, got;
    size_t character = 0;
    for (const std::string_view piece : published().split(replaced)) {
      size_t n = 0;
      for (const char b : piece) {
        if ((static_cast<uint8_t>(b) & 0xc0) != 0x80) n += length_of[character++];
      }
      expected.push_back(n);
    }
    for (const std::string_view piece : gpt2_split(bytes)) got.push_back(piece.size());
    ASSERT_EQ(got, expected) << "seed " << seed;
  }
}

}  // namespace
}  // namespace ziggurat
