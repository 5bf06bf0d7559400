// Documents in lines of JSON.
#include <nlohmann/json.hpp>

#include "data/json_field.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/core/philox.h>
#include <ziggurat/data/text.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;
using Texts = std::vector<std::string>;

struct Read {
  Texts documents, remarks;
};

class JsonLines : public ::testing::Test {
 protected:
  JsonLines() { options.inputs = {dir / "a.jsonl"}, options.document_per = DocumentPer::json; }

  Read read(const std::string& lines) const {
    write_text(dir / "a.jsonl", lines);
    TextSource source(options);
    Read read;
    for (std::string document; source.next(document);) read.documents.push_back(document);
    read.remarks = source.remarks();
    return read;
  }
  // Of a file whose second line is `line`.
  std::string refusal(const std::string& line) const {
    const std::string message =
        error_of(ErrorKind::data, [&] { read("{\"text\": \"good\"}\n" + line + "\n"); });
    EXPECT_NE(message.find("a.jsonl, line 2"), std::string::npos) << message;
    return message;
  }

  const TempDir dir;
  TextOptions options;
};

TEST_F(JsonLines, GiveTheirTexts) {
  const Read r = read(
      "{\"id\": 1, \"text\": \"one\\r\\ntw\\u00f6\"}\n\n{\"meta\": {\"text\": \"no\"}, \"text\": "
      "\"three\"}\r\n"
      "{\"text\": \"\"}\n  \r\n\xef\xbb\xbf{\"te\\u0078t\" : \"\\ud83d\\ude00\\\"\\\\\\/\\b\\f\\t\"}");
  EXPECT_EQ(r.documents, (Texts{"one\ntw\u00f6", "three", "\U0001F600\"\\/\b\f\t"}));
  ASSERT_EQ(r.remarks.size(), 1u);
  EXPECT_NE(r.remarks[0].find("CRLF or CR: 1 (first: "), std::string::npos) << r.remarks[0];
}

TEST_F(JsonLines, OtherFieldsMayHoldWhatTheyLike) {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  for (const std::string& value :
       {std::string("1e999"), std::string("-1e-999"), std::string(400, '9'), std::string("NaN"),
        std::string("[Infinity, -Infinity]"), std::string("\"\\ud83d\""),
        std::string("{\"\\udc00\": 0.5e+3}"), std::string("{\"a\": {}, \"b\": [], \"text\": \"no\"}"),
        std::string("[{}, [[]], true, false, null]"), deep}) {
    EXPECT_EQ(read("{\"a\": " + value + ", \"text\": \"x\", \"b\":" + value + "}\n").documents, Texts{"x"})
        << value;
  }
}

TEST_F(JsonLines, LoneSurrogatesAreReplacedOrRefused) {
  const std::string lines =
      "{\"text\": \"a\\ud83d\"}\n{\"text\": \"\\ude00\\ud83d\\u0041\\ud83d\\ud83d\\ude00\"}\n{\"x\": "
      "\"\\ud83d\", "
      "\"text\": \"b\"}\n";
  const Read r = read(lines);
  EXPECT_EQ(r.documents, (Texts{"a\ufffd", "\ufffd\ufffdA\ufffd\U0001F600", "b"}));
  ASSERT_EQ(r.remarks.size(), 1u);
  EXPECT_NE(r.remarks[0].find("surrogate pairs in JSON texts: 4 (first: "), std::string::npos)
      << r.remarks[0];
  EXPECT_NE(r.remarks[0].find("a.jsonl, line 1"), std::string::npos) << r.remarks[0];
  options.lone_surrogates = LoneSurrogates::refuse;
  EXPECT_NE(refusal("{\"text\": \"\\udfff\"}").find("--lone-surrogates"), std::string::npos);
  EXPECT_EQ(read("{\"x\": \"\\ud83d\", \"text\": \"b\"}\n").documents, Texts{"b"});
}

TEST_F(JsonLines, ARepeatedKeyCountsLastAndIsTold) {
  const Read r = read("{\"text\": \"a\\ud83d\", \"text\": \"b\"}\n{\"text\": null, \"text\": \"c\"}\n");
  EXPECT_EQ(r.documents, (Texts{"b", "c"}));
  ASSERT_EQ(r.remarks.size(), 1u);
  EXPECT_NE(r.remarks[0].find("more than once: 2 (first: "), std::string::npos) << r.remarks[0];
  EXPECT_NE(refusal("{\"text\": \"b\", \"text\": null}").find("has null"), std::string::npos);
}

TEST_F(JsonLines, WithoutATextAreRefusedOrSkipped) {
  const std::vector<std::pair<std::string, std::string>> kinds = {
      {"{\"txt\": \"x\"}", "no string"},
      {"{\"text\": 3}", "number"},
      {"{\"text\": null}", "null"},
      {"{\"text\": [\"x\"]}", "array"},
      {"{\"text\": {}}", "object"},
      {"{\"text\": true}", "boolean"},
      {"{\"a\": [{\"text\": \"x\"}]}", "no string"},
      {"{}", "no string"}};
  std::string all = "{\"text\": \"x\"}\n";
  for (const auto& [line, kind] : kinds) {
    const std::string message = refusal(line);
    for (const std::string& part : {kind, std::string("--key"), std::string("--missing-text skip")}) {
      EXPECT_NE(message.find(part), std::string::npos) << message;
    }
    all += line + "\n";
  }
  options.missing_text = MissingText::skip;
  const Read r = read(all);
  EXPECT_EQ(r.documents, Texts{"x"});
  ASSERT_EQ(r.remarks.size(), 1u);
  EXPECT_NE(r.remarks[0].find("without a string under the key \"text\": 8 (first: "), std::string::npos);
  refusal("{\"text\": \"x\",}");  // what is no JSON is never skipped
}

TEST_F(JsonLines, WhatIsNoObjectIsNamedWithItsColumn) {
  const std::vector<std::pair<std::string, int>> lines = {{"[\"text\"]", 1},
                                                          {"{\"text\": \"x\"", 13},
                                                          {"{\"text\": \"x\"}}", 14},
                                                          {"{\"text\": \"x\"} 1", 15},
                                                          {"{\"text\": \"x\",}", 14},
                                                          {"{\"text\" \"x\"}", 9},
                                                          {"{text: 1}", 2},
                                                          {"{\"text\": \"x", 12},
                                                          {"{\"text\": \"\\x\"}", 12},
                                                          {"{\"text\": \"\\u12g4\"}", 15},
                                                          {"{\"a\": 01}", 8},
                                                          {"{\"a\": 1.}", 9},
                                                          {"{\"a\": +1}", 7},
                                                          {"{\"a\": -}", 8},
                                                          {"{\"a\": [1 2]}", 10},
                                                          {"{\"a\": [1,]}", 10},
                                                          {"{\"a\": [}", 8},
                                                          {"{\"a\": nul}", 7},
                                                          {"{\"a\": \"\t\"}", 8},
                                                          {"\"text\"", 1},
                                                          {"3", 1},
                                                          {"{", 2},
                                                          {std::string(5, '\0'), 1}};
  options.allow_invalid_utf8 = 1;
  for (const auto& [line, column] : lines) {
    const std::string message = refusal(line);
    EXPECT_NE(message.find("column " + std::to_string(column) + ","), std::string::npos)
        << line << ": " << message;
  }
}

TEST_F(JsonLines, InvalidBytesWithinTheAllowanceStay) {
  options.allow_invalid_utf8 = 0.2;
  EXPECT_EQ(read("{\"text\": \"a\xffz\"}\n").documents, Texts{"a\xffz"});
}

// Without invalid UTF-8, surrogates and numbers out of range.
std::string without_leniencies(std::string line) {
  for (char& c : line) c = static_cast<uint8_t>(c) < 0x80 ? c : '?';
  const auto replace_all = [&](const std::string& from, const std::string& to) {
    for (size_t at = line.find(from); at != std::string::npos; at = line.find(from, at)) {
      line.replace(at, from.size(), to);
    }
  };
  replace_all("\\ud", "\\ue");
  replace_all("e+", "e-");
  return line;
}

// Lines that a general parser takes give the same text here; the others are refused, apart from what is meant
// to pass.
TEST_F(JsonLines, AgreeWithAGeneralParser) {
  const Philox random(3, Purpose::test);
  const std::string good =
      R"({"a":[1,-2.5e+3,{"text":"n"},[]],"text":"x\u00e9\ud83d\ude00\n\"","b":{"c":null,"d":[true,false]},"e":0})";
  const std::string alphabet = "{}[]\",:\\u0159eE+-.tfn \xc3\xa9";
  int taken = 0, refused = 0;
  for (uint64_t i = 0; i < 20000; ++i) {
    std::string line = good;
    for (uint64_t change = 0; change < 1 + i % 2; ++change) {
      const size_t at = random.bits(6 * i + 3 * change) % line.size();
      const char c = alphabet[random.bits(6 * i + 3 * change + 1) % alphabet.size()];
      switch (random.bits(6 * i + 3 * change + 2) % 3) {
        case 0:
          line[at] = c;
          break;
        case 1:
          line.insert(at, 1, c);
          break;
        default:
          line.erase(at, 1);
          break;
      }
    }
    const auto value = nlohmann::json::parse(line, nullptr, false);
    JsonField field;
    bool is_object = true;
    try {
      field = read_json_field(line, "text", "line");
    } catch (const Error&) {
      is_object = false;
    }
    if (value.is_object()) {
      ++taken;
      ASSERT_TRUE(is_object) << line;
      EXPECT_EQ(field.times > 0, value.contains("text")) << line;
      if (field.kind == "string") {
        EXPECT_EQ(field.text, value["text"].get<std::string>()) << line;
      }
      EXPECT_EQ(field.lone_surrogates, 0) << line;
    } else if (is_object) {  // only for what is meant to pass
      EXPECT_TRUE(nlohmann::json::parse(without_leniencies(line), nullptr, false).is_object()) << line;
    } else {
      ++refused;
    }
  }
  EXPECT_GT(taken, 1000);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace ziggurat
