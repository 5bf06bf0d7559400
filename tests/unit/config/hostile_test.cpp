// Text that nobody should be able to hurt us with.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/config/sample_config.h"

namespace ziggurat::config_test {
namespace {

using ::testing::HasSubstr;

std::string repeat(const std::string& text, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += text;
  return out;
}

TEST(ConfigHostile, ByteOrderMarkAndLineEndsAreHarmless) {
  EXPECT_EQ(parse("\xef\xbb\xbfname: x\r\ncompile: true\r\n"), parse("name: x\ncompile: true\n"));
  EXPECT_EQ(parse("name: x\rcompile: true\r"), parse("name: x\ncompile: true\n"));
  EXPECT_EQ(problems_of("\xef\xbb\xbfnam: x\r\ncompile: 3\r\n"),
            "c.yaml:1:1: nam: expected a known key, got 'nam'; did you mean 'name'?\n"
            "c.yaml:2:10: compile: expected true or false, got '3'");
  EXPECT_EQ(parse("name: \"gr\xc3\xbc\xc3\x9f\x65 \xf0\x9f\x98\x80\"").name,
            "gr\xc3\xbc\xc3\x9f\x65 \xf0\x9f\x98\x80");
}

TEST(ConfigHostile, BinaryIsRefusedWithItsPlace) {
  EXPECT_EQ(problems_of(std::string("name: a\nab\0c", 12)),
            "c.yaml:2:3: expected a text file in UTF-8, got the byte 0x00");
  EXPECT_THAT(problems_of("\x7f"
                          "ELF"),
              HasSubstr("got the byte 0x7f"));
  for (const char* bad :
       {"\xff\xfe", "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82", "\x80", "\x1b"}) {
    EXPECT_THAT(problems_of(std::string("name: ") + bad),
                HasSubstr("c.yaml:1:7: expected a text file in UTF-8"));
  }
}

TEST(ConfigHostile, AnchorsAliasesTagsAndSeveralDocumentsAreRefused) {
  EXPECT_EQ(problems_of("name: &n x\nnote: *n\n"),
            "c.yaml:1:7: name: expected a value, got an anchor (&name): write each value out\n"
            "c.yaml:2:7: note: expected a value, got an alias (*name): write the value out");
  EXPECT_THAT(problems_of("name: !!str x"), HasSubstr("c.yaml:1:7: name: expected a value without a tag"));
  EXPECT_THAT(problems_of("name: x\n---\nname: y\n"),
              HasSubstr("expected one YAML document, got a second one"));
  EXPECT_THAT(problems_of("optimizer: &o {lr: 1}\n<<: *o"),
              HasSubstr("c.yaml:2:1: <<: expected a known key"));
  std::string bomb = "a: &a [x, x, x]\n";
  for (char c = 'b'; c < 'z'; ++c) {
    bomb += fmt::format("{0}: &{0} [*{1}, *{1}, *{1}]\n", c, static_cast<char>(c - 1));
  }
  EXPECT_THAT(problems_of(bomb), HasSubstr("got an alias"));
}

TEST(ConfigHostile, KeysMustBeText) {
  EXPECT_THAT(problems_of("[a]: 1"), HasSubstr("expected a text as key, got a list or a map"));
  EXPECT_THAT(problems_of("? {a: 1}\n: 1"), HasSubstr("expected a text as key, got a list or a map"));
  EXPECT_THAT(problems_of("~: 1"), HasSubstr("expected a text as key, got nothing"));
}

TEST(ConfigHostile, DepthIsBounded) {
  const std::string too_deep = "expected at most 64 levels of nesting, got more";
  EXPECT_THAT(problems_of("x: " + repeat("[", 63) + repeat("]", 63)), testing::Not(HasSubstr(too_deep)));
  EXPECT_THAT(problems_of("x: " + repeat("[", 64) + repeat("]", 64)), HasSubstr(too_deep));
  for (const char* opening : {"[", "{a: ", "- ", "? ", "[{a: "}) {
    EXPECT_NE(problems_of(repeat(opening, 20'000)), "no error") << opening;
  }
  std::string block;
  for (int i = 0; i < 1000; ++i) block += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  EXPECT_THAT(problems_of(block), HasSubstr(too_deep));
  std::string dots = "a";
  for (int i = 0; i < 20'000; ++i) dots += ".a";
  EXPECT_THAT(problems_of("", {dots + "=1"}), HasSubstr("expected at most 64 levels, got 20001"));
}

TEST(ConfigHostile, SizeIsBounded) {
  EXPECT_EQ(problems_of(std::string(1 << 20, '#')), "no error");
  EXPECT_EQ(problems_of(std::string((1 << 20) + 1, '#')),
            "c.yaml: expected a config of at most 1 MiB, got a larger one");
  EXPECT_THAT(problems_of("tags: [" + repeat("a,", 200'000) + "]"),
              HasSubstr("expected at most 100000 values"));
  EXPECT_THAT(problems_of(repeat("[a,", 300'000)), HasSubstr("expected at most 100000 brackets, got 300000"));
  std::string many;
  for (int i = 0; i < 50'000; ++i) many += "key" + std::to_string(i) + ": 1\n";
  EXPECT_THAT(problems_of(many),
              HasSubstr("c.yaml:1001:1: key1000: expected at most 1000 keys in a map, got more"));
}

TEST(ConfigHostile, ManyProblemsAreCountedNotListed) {
  std::string many = "sizes: [" + repeat("x,", 50'000) + "]\n";
  const std::string message = problems_of(many);
  EXPECT_THAT(message, HasSubstr("sizes.99:"));
  EXPECT_THAT(message, testing::Not(HasSubstr("sizes.100:")));
  EXPECT_THAT(message, testing::EndsWith("\n(and 49900 more)"));
  EXPECT_THAT(problems_of("compile: " + std::string(1000, 'y')),
              testing::EndsWith(std::string(60, 'y') + "...'"));
}

TEST(ConfigHostile, BrokenSyntaxNamesItsPlace) {
  EXPECT_EQ(problems_of("name: x\ncompile: [\n"),
            "c.yaml:3:1: expected valid YAML, got an error: end of sequence flow not found; is a bracket "
            "left open?");
  EXPECT_THAT(problems_of("optimizer:\n\tlr: 1\n"), HasSubstr("c.yaml:2:"));
  EXPECT_THAT(problems_of("optimizer:\n\tlr: 1\n"), HasSubstr("begins with a tab: indent with spaces"));
  EXPECT_THAT(problems_of("name: 'x"), HasSubstr("is a quote left open?"));
  EXPECT_THAT(problems_of("note: a: b"), HasSubstr("a text with ': ' in it stands in quotes"));
  for (const char* text : {"name: 'x", "name: \"\\q\"", "a: b: c", "\tname: x", "}", "]", "@", "`", "&", "*",
                           "- a\nb: c", "? a\n? b", "{a, b: }", "[a: ]", "%YAML 9.9\n---\na"}) {
    EXPECT_NE(problems_of(text), "no error") << text;
  }
}

// Every prefix and every single-byte change of a good text either loads or is an Error(config).
TEST(ConfigHostile, MutationsNeverEscape) {
  const std::string good =
      "name: \"a b\"\noptimizer: {lr: 1e-4, adam: {beta1: 0.5}}\nblocks:\n  - ffn: moe\n    experts: 8\n";
  for (size_t i = 0; i <= good.size(); ++i) {
    EXPECT_THAT(problems_of(good.substr(0, i)), testing::Not(HasSubstr("wrong kind")));
    for (const char c : std::string_view("\0\n\r\t :-?[]{}&*!|>'\"%@`#,\\\x80\xff", 27)) {
      std::string bad = good;
      bad.insert(i, 1, c);
      EXPECT_THAT(problems_of(bad), testing::Not(HasSubstr("wrong kind")));
    }
  }
}

}  // namespace
}  // namespace ziggurat::config_test
