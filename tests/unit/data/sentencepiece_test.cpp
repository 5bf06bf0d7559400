// SentencePiece models, made here by hand: the .model file is a protocol buffer of a few fields.
#include "tests/unit/data/data_test_support.h"
#include "tests/unit/data/sentencepiece_model.h"
#include <ziggurat/build_config.h>
#include <ziggurat/data/tokenizer.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

class SentencePiece : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kHasSentencePiece) GTEST_SKIP() << "built without SentencePiece";
    write_text(dir / "tokenizer.model", sentencepiece_model());
  }
  const TempDir dir;
};

TEST_F(SentencePiece, EncodesAndDecodesByItsModel) {
  const auto tokenizer = load_tokenizer(dir / "tokenizer.model");
  EXPECT_EQ(tokenizer->kind(), "sentencepiece");
  EXPECT_EQ(tokenizer->vocab_size(), 9);
  EXPECT_EQ(tokenizer->eod_id(), 2);
  // Ids: 3 "_the", 4 "_cat", 5 "_", 6 "c", 7 "a", 8 "t". A space in front is the model's own doing.
  EXPECT_EQ(tokenizer->encode("the cat"), (std::vector<int32_t>{3, 4}));
  EXPECT_EQ(tokenizer->encode("tac the"), (std::vector<int32_t>{5, 8, 7, 6, 3}));
  EXPECT_EQ(tokenizer->encode("x")[1], 0);  // unknown
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{5, 8, 7, 6, 3}), "tac the");
  EXPECT_TRUE(tokenizer->encode("").empty());
  const std::string text = "the cat the cat";
  EXPECT_EQ(tokenizer->safe_cut(text), text.size());  // no place is safe
  error_of(ErrorKind::data, [&] { tokenizer->decode(std::vector<int32_t>{9}); });
}

// Bytes that are no UTF-8 are seen in the ids; they neither vanish nor stop anything.
TEST_F(SentencePiece, InvalidBytesBecomeUnknownTokens) {
  const auto tokenizer = load_tokenizer(dir.path());
  EXPECT_EQ(tokenizer->encode("c\xff"
                              "a"),
            (std::vector<int32_t>{5, 6, 0, 7}));
  EXPECT_EQ(tokenizer->encode("c\xe4\xb8"), (std::vector<int32_t>{5, 6, 0}));
}

TEST_F(SentencePiece, IsSavedAndKnownAgain) {
  const auto tokenizer = load_tokenizer(dir.path());
  tokenizer->save(dir / "copy");
  EXPECT_EQ(read_text(dir / "copy/tokenizer.model"), sentencepiece_model());
  EXPECT_EQ(load_tokenizer(dir / "copy")->fingerprint(), tokenizer->fingerprint());
  write_text(dir / "other.model", sentencepiece_model("_dog"));
  EXPECT_NE(load_tokenizer(dir / "other.model")->fingerprint(), tokenizer->fingerprint());
}

TEST_F(SentencePiece, WhatIsNoModelIsNamed) {
  for (const std::string& bytes : {std::string(), std::string("no model"), std::string(1000, '\xff')}) {
    write_text(dir / "bad.model", bytes);
    const std::string message = error_of(ErrorKind::data, [&] { load_tokenizer(dir / "bad.model"); });
    EXPECT_NE(message.find("bad.model is no SentencePiece model"), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace ziggurat
