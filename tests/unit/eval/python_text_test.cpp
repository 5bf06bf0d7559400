#include "src/eval/python_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/data/data_test_support.h"

namespace ziggurat::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ziggurat::testing::error_of;

TEST(PythonText, ShufflesAsPythonDoes) {  // random.Random(42).shuffle(list(range(n)))
  EXPECT_THAT(shuffled(5, 42), ElementsAre(3, 1, 2, 4, 0));
  EXPECT_THAT(shuffled(10, 42), ElementsAre(7, 3, 2, 8, 5, 6, 9, 4, 0, 1));
  EXPECT_TRUE(shuffled(0, 42).empty());
  EXPECT_THAT(shuffled(1, 42), ElementsAre(0));
}

TEST(PythonText, SplitsAtTheLastSpace) {
  EXPECT_EQ(split_last_word("a b  c"), std::pair(std::string("a b "), std::string("c")));
  EXPECT_EQ(split_last_word("end "), std::pair(std::string("end"), std::string()));
  EXPECT_EQ(split_last_word("a\tb"), std::nullopt);
}

TEST(PythonText, CountsAndStripsCharacters) {
  EXPECT_EQ(code_points("Zoë 日本 😀"), 8u);
  EXPECT_EQ(rstrip("a \t\n\u00a0\u3000\x1c"), "a");
  EXPECT_EQ(rstrip("a\u200b"), "a\u200b");  // no white space
  EXPECT_EQ(strip(" \u2003a b\r\n"), "a b");
  EXPECT_EQ(strip(" \n"), "");
}

TEST(PythonText, LowersAndDropsPunctuation) {
  EXPECT_EQ(lower("ÀÉ Ünder ΣΩ Жук ABC ß 1"), "àé ünder σω жук abc ß 1");
  EXPECT_EQ(lower("\xff\x80x"), "\xff\x80x");
  EXPECT_EQ(without_punctuation("!a-b_c.d’e~{f}@"), "abcd’ef");
}

TEST(PythonText, EscapesJsonAsPythonDoes) {
  EXPECT_EQ(json_dumps("a\"\\/\n\t\x01\x7f é 日 😀"),
            R"("a\"\\/\n\t\u0001\u007f \u00e9 \u65e5 \ud83d\ude00")");
}

TEST(PythonText, ReadsListsOfStrings) {
  EXPECT_THAT(parse_string_list(R"(['a', "b's", 'c\'d\\', '\xe9\u2013\U0001f600\n',])", "x"),
              ElementsAre("a", "b's", "c'd\\", "é–😀\n"));
  EXPECT_THAT(parse_string_list(" [ ] ", "x"), ElementsAre());
  EXPECT_THAT(parse_string_list(R"(['\q'])", "x"), ElementsAre("\\q"));
  for (const char* broken :
       {"", "[", "['a'", "['a", "['a\\", "['a' 'b']", "[1]", "['a'] x", "['\\x4']", "['\\ud800']", "'a'"}) {
    EXPECT_THAT(error_of(ErrorKind::data, [&] { parse_string_list(broken, "row 7"); }), HasSubstr("row 7"))
        << broken;
  }
}

TEST(PythonText, ReadsTabsAndQuotes) {
  EXPECT_THAT(parse_tsv("a\tb\r\n\"c \"\"d\"\"\n\te\"\tf\n\ng", "x"),
              ElementsAre(ElementsAre("a", "b"), ElementsAre("c \"d\"\n\te", "f"), ElementsAre("g")));
  EXPECT_THAT(parse_tsv("a\"b\"\t\n", "x"), ElementsAre(ElementsAre("a\"b\"", "")));
  EXPECT_THAT(error_of(ErrorKind::data, [] { parse_tsv("a\t\"b\n", "file"); }), HasSubstr("file"));
}

}  // namespace
}  // namespace ziggurat::eval
