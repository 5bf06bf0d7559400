// Ids decoded one by one give the text of decoding them together, for every kind of tokenizer.
#include "tests/unit/data/data_test_support.h"
#include "tests/unit/data/sentencepiece_model.h"
#include <ziggurat/build_config.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/data/bpe_tokenizer.h>
#include <ziggurat/data/bpe_trainer.h>
#include <ziggurat/data/utf8_text.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;
using Ids = std::vector<int32_t>;

std::vector<std::string> streamed(const Tokenizer& tokenizer, const Ids& ids) {
  const auto detokenizer = tokenizer.new_detokenizer();
  std::vector<std::string> parts;
  for (const int32_t id : ids) parts.push_back(detokenizer->add(id));
  parts.push_back(detokenizer->finish());
  return parts;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += part;
  return text;
}

// Also: what a terminal shows of the parts is what it shows of the whole, so no part ends within a character.
void expect_streamed_is_whole(const Tokenizer& tokenizer, const Ids& ids) {
  const std::vector<std::string> parts = streamed(tokenizer, ids);
  const std::string whole = tokenizer.decode(ids);
  ASSERT_EQ(joined(parts), whole) << ::testing::PrintToString(ids);
  std::string shown;
  for (const std::string& part : parts) shown += with_replacement_characters(part);
  ASSERT_EQ(shown, with_replacement_characters(whole)) << ::testing::PrintToString(ids);
}

// Random ids among [begin, end), as a model may draw them.
void expect_any_ids_stream(const Tokenizer& tokenizer, int32_t begin, int32_t end, uint64_t texts) {
  for (uint64_t seed = 0; seed < texts; ++seed) {
    const Philox random(seed, Purpose::test);
    Ids ids;
    for (uint64_t i = 0; i < 1 + seed % 40; ++i) {
      ids.push_back(begin + static_cast<int32_t>(random.bits(i) % static_cast<uint32_t>(end - begin)));
    }
    expect_streamed_is_whole(tokenizer, ids);
  }
}

const std::string kText = "na\xc3\xafve \xe2\x82\xac 5, \xf0\x9f\x8e\xb5 and \xe6\xbc\xa2\xe5\xad\x97.";

TEST(Detokenizer, HoldsBytesBackUntilTheirCharacterIsWhole) {
  const auto bytes = load_tokenizer("bytes");
  expect_streamed_is_whole(*bytes, bytes->encode(kText));
  expect_any_ids_stream(*bytes, 0, 257, 500);
  expect_any_ids_stream(*bytes, 0xb0, 0x100, 500);  // hardly any ASCII: beginnings and middles of characters
  EXPECT_EQ(streamed(*bytes, {0xe2, 0x82, 0xac, 'x'}),
            (std::vector<std::string>{"", "", "\xe2\x82\xac", "x", ""}));
  EXPECT_EQ(streamed(*bytes, {'a', 0xe2, 0x82}), (std::vector<std::string>{"a", "", "", "\xe2\x82"}));
  EXPECT_EQ(streamed(*bytes, {0xe2, 'a'}), (std::vector<std::string>{"",
                                                                     "\xe2"
                                                                     "a",
                                                                     ""}));
}

TEST(Detokenizer, JoinsThePartsOfCharactersOfABpe) {
  BpeTrainer trainer;
  trainer.add_text(kText + kText + " and other text, na\xc3\xafve or not");
  const BpeTokenizer bpe(trainer.train(280));
  const Ids ids = bpe.encode(kText);
  EXPECT_EQ(joined(streamed(bpe, ids)), kText);
  expect_streamed_is_whole(bpe, ids);
  expect_any_ids_stream(bpe, 0, 280, 500);
}

TEST(Detokenizer, SaysWhichIdsAreText) {
  const auto bytes = load_tokenizer("bytes");
  EXPECT_TRUE(bytes->is_text(0) && bytes->is_text(255));
  EXPECT_FALSE(bytes->is_text(-1) || bytes->is_text(256) || bytes->is_text(257));
  BpeTrainer trainer;
  trainer.add_text(kText + kText);
  BpeVocab vocab = trainer.train(260);  // 259: <|endoftext|>
  vocab.tokens.resize(264);             // 260 to 262: no such token
  vocab.tokens[263] = "<pad>";
  vocab.special_tokens.push_back(263);
  const BpeTokenizer bpe(vocab);
  for (int32_t id = -1; id < 265; ++id) EXPECT_EQ(bpe.is_text(id), 0 <= id && id < 259) << id;
}

class SentencePieceDetokenizer : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kHasSentencePiece) GTEST_SKIP() << "built without SentencePiece";
    write_text(dir_ / "tokenizer.model", sentencepiece_model("_cat", true));
    tokenizer_ = load_tokenizer(dir_.path());
  }
  const TempDir dir_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

// Ids: 3 "_the", 4 "_cat", 5 "_", 6 "c", 7 "a", 8 "t", 9 + b: byte b.
TEST_F(SentencePieceDetokenizer, KeepsTheSpacesBetweenPieces) {
  EXPECT_EQ(streamed(*tokenizer_, {3, 4, 6, 3}), (std::vector<std::string>{"the", " cat", "c", " the", ""}));
  EXPECT_EQ(joined(streamed(*tokenizer_, tokenizer_->encode("the cat the cat"))), "the cat the cat");
}

TEST_F(SentencePieceDetokenizer, IsTheLibrarysDecodingOfAll) {
  expect_streamed_is_whole(*tokenizer_, tokenizer_->encode("the " + kText));
  expect_any_ids_stream(*tokenizer_, 0, 9, 1000);   // spaces, control and unknown pieces in any order
  expect_any_ids_stream(*tokenizer_, 0, 15, 1000);  // and a few bytes
  expect_any_ids_stream(*tokenizer_, 0, 266, 1000);
  expect_any_ids_stream(*tokenizer_, 9 + 0xb0, 9 + 0x100, 1000);
}

TEST_F(SentencePieceDetokenizer, WhatFollowsAPromptIsAPartOfTheWholeText) {
  for (const std::string prompt : {"the cat", "the ", "cat", "\xe2\x82\xac"}) {
    for (const Ids& more : {Ids{4, 3}, Ids{8, 5, 5, 4}, Ids{9 + 0xe2, 9 + 0x82, 9 + 0xac, 3}, Ids{2, 3}}) {
      Ids all = tokenizer_->encode(prompt);
      const auto detokenizer = tokenizer_->new_detokenizer();
      std::string before, after;
      for (const int32_t id : all) before += detokenizer->add(id);
      for (const int32_t id : more) after += detokenizer->add(id);
      all.insert(all.end(), more.begin(), more.end());
      EXPECT_EQ(before, tokenizer_->decode(tokenizer_->encode(prompt)));
      EXPECT_EQ(before + after + detokenizer->finish(), tokenizer_->decode(all)) << prompt;
    }
  }
}

TEST_F(SentencePieceDetokenizer, SaysWhichPiecesAreText) {
  for (int32_t id = -1; id <= 266; ++id) EXPECT_EQ(tokenizer_->is_text(id), 3 <= id && id < 265) << id;
  error_of(ErrorKind::data, [&] { tokenizer_->new_detokenizer()->add(266); });
}

TEST(Utf8Text, NamesAndReplacesWhatIsNotWellFormed) {
  EXPECT_EQ(first_invalid_utf8(kText), std::nullopt);
  EXPECT_EQ(first_invalid_utf8(""), std::nullopt);
  EXPECT_EQ(first_invalid_utf8("caf\xe9!"), 3u);
  EXPECT_EQ(first_invalid_utf8("\xed\xa0\x80"), 0u);  // a surrogate
  const std::string r = "\xef\xbf\xbd";
  EXPECT_EQ(with_replacement_characters(kText), kText);
  EXPECT_EQ(with_replacement_characters("caf\xe9!"), "caf" + r + "!");
  EXPECT_EQ(with_replacement_characters("\xe2\x82"), r);  // one beginning of a character
  EXPECT_EQ(with_replacement_characters("\xe2\x82"
                                        "a\x82"),
            r + "a" + r);
  EXPECT_EQ(with_replacement_characters("\xf0\x9f\x8e\xc3\xa9"), r + "\xc3\xa9");
  EXPECT_EQ(with_replacement_characters("\xed\xa0\x80"), r + r + r);
  EXPECT_EQ(with_replacement_characters("\xc0\xaf\xff"), r + r + r);
}

}  // namespace
}  // namespace ziggurat
