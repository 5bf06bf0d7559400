#include <algorithm>

#include <nlohmann/json.hpp>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/core/philox.h>
#include <ziggurat/data/bpe_trainer.h>
#include <ziggurat/data/gpt2_split.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

constexpr const char* kText =
    "The cat sat on the mat. The other cat sat on the other mat, and that was that. "
    "aaaaaaaaaaaaaaaa bananas and anemones; the thatcher thatched the hatch 1234 12 123 12.";

BpeTokenizer small_tokenizer(int32_t vocab_size = 280) {
  BpeTrainer trainer;
  trainer.add_text(kText);
  return BpeTokenizer(trainer.train(vocab_size));
}

// The definition, word for word: merge the leftmost pair of lowest rank until there is none.
std::vector<int32_t> naive_encode(const BpeVocab& vocab, std::string_view text) {
  std::vector<int32_t> ids;
  for (const std::string_view piece : gpt2_split(text)) {
    std::vector<int32_t> symbols;
    for (const char c : piece) {
      const auto it = std::find(vocab.tokens.begin(), vocab.tokens.end(), std::string(1, c));
      symbols.push_back(static_cast<int32_t>(it - vocab.tokens.begin()));
    }
    for (bool merged = true; merged;) {
      merged = false;
      for (const auto& merge : vocab.merges) {  // in rank order
        for (size_t i = 0; i + 1 < symbols.size() && !merged; ++i) {
          if (symbols[i] != merge.left || symbols[i + 1] != merge.right) continue;
          symbols[i] = merge.merged;
          symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(i) + 1);
          merged = true;
        }
        if (merged) break;
      }
    }
    ids.insert(ids.end(), symbols.begin(), symbols.end());
  }
  return ids;
}

std::string random_bytes(uint64_t seed, size_t n, uint32_t alphabet) {
  const Philox random(seed, Purpose::test);
  std::string bytes(n, '\0');
  for (size_t i = 0; i < n; ++i) {
    const uint32_t value = random.bits(i) % alphabet;
    bytes[i] = static_cast<char>(alphabet == 256 ? value : 'a' + value);
  }
  return bytes;
}

TEST(BpeTokenizer, EncodesAsTheDefinitionSays) {
  const BpeTokenizer tokenizer = small_tokenizer();
  EXPECT_EQ(tokenizer.encode(kText), naive_encode(tokenizer.vocab(), kText));
  // Long pieces go through the heap, short ones do not; lengths around the border and far past it.
  for (const size_t n : {1, 2, 15, 16, 47, 48, 49, 50, 200, 1000}) {
    for (uint64_t seed = 0; seed < 5; ++seed) {
      for (const uint32_t alphabet : {1u, 2u, 20u}) {
        const std::string text = random_bytes(seed, n, alphabet);
        ASSERT_EQ(tokenizer.encode(text), naive_encode(tokenizer.vocab(), text)) << text;
      }
    }
  }
}

TEST(BpeTokenizer, TheCacheChangesNothing) {
  const BpeTokenizer tokenizer = small_tokenizer();
  const auto encoder = tokenizer.new_encoder();
  for (int round = 0; round < 3; ++round) {
    std::vector<int32_t> ids;
    encoder->encode(kText, ids);
    ASSERT_EQ(ids, naive_encode(tokenizer.vocab(), kText));
  }
}

TEST(BpeTokenizer, AnyBytesComeBack) {
  const BpeTokenizer tokenizer = small_tokenizer();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const std::string bytes = random_bytes(seed, 3000, 256);
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(bytes)), bytes);
  }
  EXPECT_TRUE(tokenizer.encode("").empty());
}

TEST(BpeTokenizer, SpecialTokensInTheTextAreText) {
  const BpeTokenizer tokenizer = small_tokenizer();
  const std::vector<int32_t> ids = tokenizer.encode("a<|endoftext|>b");
  EXPECT_EQ(std::count(ids.begin(), ids.end(), tokenizer.eod_id()), 0);
  EXPECT_EQ(tokenizer.eod_id(), 279);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{279}), "<|endoftext|>");
}

TEST(BpeTokenizer, DecodingAForeignIdIsAnError) {
  const BpeTokenizer tokenizer = small_tokenizer();
  for (const int32_t id : {-1, 280}) {
    const std::string message =
        error_of(ErrorKind::data, [&] { tokenizer.decode(std::vector<int32_t>{id}); });
    EXPECT_NE(message.find("token id " + std::to_string(id)), std::string::npos) << message;
  }
}

TEST(BpeTrainer, MergesTheMostFrequentPairFirst) {
  BpeTrainer trainer;
  trainer.add_text("ab ab ab cd cd");  // pieces: "ab", " ab" x2, " cd" x2
  const BpeVocab vocab = trainer.train(257 + 3);
  EXPECT_EQ(vocab.tokens[256], "ab");  // 3 times
  const std::vector<std::string> next = {vocab.tokens[257], vocab.tokens[258]};
  // Twice each: (c, d), (space, ab), (space, c). Lowest pair of ids wins: c = 66, ab = 256, space = 220.
  EXPECT_EQ(next, (std::vector<std::string>{"cd", " ab"}));
  EXPECT_EQ(vocab.tokens[259], kEndOfText);
}

TEST(BpeTrainer, DependsOnTheTextOnly) {
  BpeTrainer forwards, backwards;
  const std::vector<std::string> documents = {"the cat and the dog ", "a dog and a cat and a hat ",
                                              "the hat that sat "};
  for (size_t i = 0; i < 3; ++i) {
    forwards.add_text(documents[i]);
    backwards.add_text(documents[2 - i]);
  }
  EXPECT_EQ(BpeTokenizer(forwards.train(268)).fingerprint(),
            BpeTokenizer(backwards.train(268)).fingerprint());
  EXPECT_NE(BpeTokenizer(forwards.train(268)).fingerprint(), BpeTokenizer(forwards.train(269)).fingerprint());
}

TEST(BpeTrainer, RefusesAVocabularyTheTextCannotFill) {
  BpeTrainer trainer;
  trainer.add_text("abab abab");
  EXPECT_NE(error_of(ErrorKind::data, [&] { trainer.train(1000); }).find("smaller --vocab-size"),
            std::string::npos);
  error_of(ErrorKind::argument, [&] { trainer.train(256); });
}

TEST(TokenizerFiles, BothFormatsGiveTheSameTokenizer) {
  const TempDir dir;
  const BpeTokenizer tokenizer = small_tokenizer();
  tokenizer.save(dir.path());
  EXPECT_EQ(load_tokenizer(dir.path())->fingerprint(), tokenizer.fingerprint());
  EXPECT_EQ(load_tokenizer(dir / "tokenizer.json")->eod_id(), tokenizer.eod_id());

  // The same as GPT-2's two files.
  const auto root = nlohmann::json::parse(read_text(dir / "tokenizer.json"));
  std::string merges = "#version: 0.2\n";
  for (const auto& merge : root["model"]["merges"]) merges += merge.get<std::string>() + "\n";
  write_text(dir / "gpt2/vocab.bpe", merges);
  write_text(dir / "gpt2/encoder.json", root["model"]["vocab"].dump());
  const auto read_back = load_tokenizer(dir / "gpt2");
  EXPECT_EQ(read_back->fingerprint(), tokenizer.fingerprint());
  EXPECT_EQ(read_back->encode(kText), tokenizer.encode(kText));
}

TEST(TokenizerFiles, TheFirst256IdsAreBytesInGpt2Order) {
  const auto order = gpt2_byte_order();
  EXPECT_EQ(order[0], '!');     // id 0 of GPT-2
  EXPECT_EQ(order[64], 'a');    // id 64
  EXPECT_EQ(order[198], '\n');  // id 198
  EXPECT_EQ(order[220], ' ');   // id 220
}

TEST(TokenizerFiles, WhatAPostProcessorWouldAddIsSaid) {
  const TempDir dir;
  small_tokenizer().save(dir.path());
  const auto good = nlohmann::json::parse(read_text(dir / "tokenizer.json"));
  const auto remark_with = [&](const nlohmann::json& post_processor) {
    auto root = good;
    root["post_processor"] = post_processor;
    write_text(dir / "other.json", root.dump());
    const auto tokenizer = load_tokenizer(dir / "other.json");
    EXPECT_EQ(tokenizer->fingerprint(), small_tokenizer().fingerprint());  // its ids are the same
    EXPECT_EQ(tokenizer->encode("the cat"), small_tokenizer().encode("the cat"));
    return tokenizer->remark();
  };
  const nlohmann::json byte_level = {{"type", "ByteLevel"}, {"trim_offsets", false}};
  const nlohmann::json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const nlohmann::json bos = {{"SpecialToken", {{"id", "<|begin|>"}, {"type_id", 0}}}};
  const nlohmann::json template_processing = {{"type", "TemplateProcessing"}, {"single", {bos, text}}};
  const auto added = [](const std::string& names) { return "puts " + names + " around every text"; };
  EXPECT_EQ(remark_with(nullptr), "");
  EXPECT_EQ(remark_with(byte_level), "");
  EXPECT_EQ(remark_with({{"type", "TemplateProcessing"}, {"single", {text}}}), "");
  EXPECT_NE(remark_with(template_processing).find(added("<|begin|>")), std::string::npos);
  EXPECT_NE(remark_with({{"type", "Sequence"}, {"processors", {byte_level, template_processing}}})
                .find(added("<|begin|>")),
            std::string::npos);
  EXPECT_NE(remark_with({{"type", "RobertaProcessing"}, {"sep", {"</s>", 2}}, {"cls", {"<s>", 0}}})
                .find(added("<s>, </s>")),
            std::string::npos);
  error_of(ErrorKind::data, [&] { remark_with({{"type", "BertProcessing"}, {"sep", "</s>"}}); });
}

TEST(TokenizerFiles, ErrorsNameFileAndCure) {
  const TempDir dir;
  small_tokenizer().save(dir.path());
  const auto good = nlohmann::json::parse(read_text(dir / "tokenizer.json"));
  const auto message_for = [&](const nlohmann::json& root) {
    write_text(dir / "bad.json", root.dump());
    const std::string message = error_of(ErrorKind::data, [&] { load_tokenizer(dir / "bad.json"); });
    EXPECT_TRUE(message.find("bad.json") != std::string::npos || message.find("[tokenizer]") == 0) << message;
    return message;
  };
  auto bad = good;
  bad["model"]["vocab"].erase("a");
  message_for(bad);  // a merge or a byte without its token
  bad = good;
  bad["pre_tokenizer"]["add_prefix_space"] = true;
  EXPECT_NE(message_for(bad).find("pre_tokenizer"), std::string::npos);
  bad = good;
  bad["normalizer"] = {{"type", "NFC"}};
  EXPECT_NE(message_for(bad).find("normalizer"), std::string::npos);
  bad = good;
  bad["model"]["type"] = "Unigram";
  EXPECT_NE(message_for(bad).find("Unigram"), std::string::npos);
  bad = good;
  bad["model"]["merges"][0] = "nospace";
  EXPECT_NE(message_for(bad).find("left right"), std::string::npos);
  message_for(nlohmann::json::array());
  message_for({{"model", 3}});
  bad = good;
  bad["model"]["vocab"]["a"] = "one";
  message_for(bad);
  write_text(dir / "cut.json", read_text(dir / "tokenizer.json").substr(0, 500));
  EXPECT_NE(error_of(ErrorKind::data, [&] { load_tokenizer(dir / "cut.json"); }).find("cut.json"),
            std::string::npos);
  EXPECT_NE(error_of(ErrorKind::data, [&] { load_tokenizer(dir / "none"); }).find("train-tokenizer"),
            std::string::npos);
  std::filesystem::create_directory(dir / "empty");
  EXPECT_NE(error_of(ErrorKind::data, [&] { load_tokenizer(dir / "empty"); }).find("vocab.bpe"),
            std::string::npos);
}

}  // namespace
}  // namespace ziggurat
