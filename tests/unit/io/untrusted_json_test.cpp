// JSON of strangers: what would end the process, or be read as something else, is refused.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ziggurat/io/untrusted_json.h>

namespace ziggurat {
namespace {

using ::testing::HasSubstr;

std::string fault_of(const std::string& text) {
  try {
    parse_untrusted_json(text);
  } catch (const JsonFault& fault) {
    return fault.what();
  }
  return "";
}

std::string nested(int levels, const std::string& open, const std::string& close) {
  std::string text, end;
  for (int i = 0; i < levels; ++i) text += open, end += close;
  return text + "1" + end;
}

TEST(UntrustedJson, KeepsWhatIsWellFormed) {
  EXPECT_EQ(parse_untrusted_json("\xef\xbb\xbf {\"a\": [1, {\"a\": null}], \"b\": {\"a\": 2}}").dump(),
            "{\"a\":[1,{\"a\":null}],\"b\":{\"a\":2}}");
  EXPECT_EQ(fault_of(nested(kMostJsonLevels, "[", "]")), "");
  EXPECT_EQ(fault_of(nested(kMostJsonLevels, "{\"a\":", "}")), "");
}

TEST(UntrustedJson, RefusesNestingThatWouldUseUpTheStack) {
  for (const int levels : {kMostJsonLevels + 1, 4'000'000}) {
    EXPECT_THAT(fault_of(nested(levels, "[", "]")), HasSubstr("deeper than 64"));
    EXPECT_THAT(fault_of("{\"a\": " + nested(levels, "[", "]") + "}"), HasSubstr("deeper than 64"));
  }
  EXPECT_THAT(fault_of(nested(100'000, "{\"a\":", "}")), HasSubstr("deeper than 64"));
}

TEST(UntrustedJson, RefusesWhatWouldBeReadAsSomethingElse) {
  EXPECT_THAT(fault_of("{\"a\": 1, \"b\": {\"c\": 1, \"c\": 2}}"), HasSubstr("\"c\" stands twice"));
  EXPECT_THAT(fault_of(std::string("[1]\0 and more", 13)), HasSubstr("NUL at byte 4"));
}

TEST(UntrustedJson, SaysWhatIsNoJson) {
  for (const char* text :
       {"", "{", "[1,", "nonsense", "[1] 2", "{\"a\": NaN}", "\"\\ud83d\"", "\"\xff\xfe\""}) {
    const std::string fault = fault_of(text);
    EXPECT_THAT(fault, HasSubstr("parse error")) << text;
    for (const char c : fault) EXPECT_TRUE(0x20 <= c && c <= 0x7e) << fault;
  }
}

}  // namespace
}  // namespace ziggurat
