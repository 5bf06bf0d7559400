// Damaged files: whatever bytes they hold, the readers either work or throw an Error. Run under the
// sanitizers these tests find reads and writes out of bounds.
#include <nlohmann/json.hpp>

#include "tests/unit/data/data_test_support.h"
#include "tests/unit/data/sentencepiece_model.h"
#include <ziggurat/build_config.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/data/bpe_trainer.h>
#include <ziggurat/data/text.h>
#include <ziggurat/data/tokenizer.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

// Changes, inserts, removes or repeats a few bytes, or cuts the end off.
std::string mutate(std::string bytes, uint64_t seed) {
  const Philox random(seed, Purpose::test);
  const uint32_t changes = 1 + random.bits(0) % 4;
  for (uint32_t i = 0; i < changes && !bytes.empty(); ++i) {
    const size_t at = random.bits(4 * i + 1) % bytes.size(), n = 1 + random.bits(4 * i + 2) % 16;
    const auto value = static_cast<char>(random.bits(4 * i + 3));
    switch (random.bits(4 * i + 4) % 5) {
      case 0:
        bytes[at] = value;
        break;
      case 1:
        bytes.insert(at, 1, value);
        break;
      case 2:
        bytes.erase(at, n);
        break;
      case 3:
        bytes.insert(at, bytes.substr(at, n));
        break;
      default:
        bytes.resize(at);
        break;
    }
  }
  return bytes;
}

// Runs `read` on `count` mutations; at least one in a hundred must be refused, or nothing was tested.
template <class Read>
void expect_no_crash(const std::filesystem::path& file, const std::string& good, uint64_t count,
                     const Read& read) {
  uint64_t refused = 0;
  for (uint64_t seed = 0; seed < count; ++seed) {
    write_text(file, mutate(good, seed));
    try {
      read();
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, count / 100);
}

void read_all(const TextOptions& options) {
  TextSource source(options);
  for (std::string document; source.next(document);) {
  }
}

TEST(Mutations, TokenizerFiles) {
  const TempDir dir;
  BpeTrainer trainer;
  trainer.add_text("the cat and the other cat that sat there");
  BpeTokenizer(trainer.train(262)).save(dir.path());
  const std::string good = read_text(dir / "tokenizer.json");
  expect_no_crash(dir / "bad.json", good, 500, [&] {
    const auto tokenizer = load_tokenizer(dir / "bad.json");
    const auto ids = tokenizer->encode("the cat \xff sat");
    (void)tokenizer->decode(ids);
  });
}

TEST(Mutations, Gpt2Files) {
  const TempDir dir;
  BpeTrainer trainer;
  trainer.add_text("the cat and the other cat that sat there");
  BpeTokenizer(trainer.train(262)).save(dir.path());
  const auto root = nlohmann::json::parse(read_text(dir / "tokenizer.json"));
  std::string merges = "#version: 0.2\n";
  for (const auto& merge : root["model"]["merges"]) merges += merge.get<std::string>() + "\n";
  const std::string vocab = root["model"]["vocab"].dump();
  const auto use = [&] {
    const auto tokenizer = load_tokenizer(dir / "bad");
    (void)tokenizer->decode(tokenizer->encode("the cat \xff sat"));
  };
  write_text(dir / "bad/encoder.json", vocab);
  expect_no_crash(dir / "bad/vocab.bpe", merges, 500, use);
  write_text(dir / "bad/vocab.bpe", merges);
  expect_no_crash(dir / "bad/encoder.json", vocab, 300, use);
}

TEST(Mutations, SentencePieceModels) {
  if (!kHasSentencePiece) GTEST_SKIP() << "built without SentencePiece";
  const TempDir dir;
  expect_no_crash(dir / "bad.model", sentencepiece_model(), 1000, [&] {
    const auto tokenizer = load_tokenizer(dir / "bad.model");
    (void)tokenizer->decode(tokenizer->encode("the cat \xff sat"));
  });
}

TEST(Mutations, JsonLines) {
  const TempDir dir;
  TextOptions options;
  options.inputs = {dir / "bad.jsonl"}, options.document_per = DocumentPer::json;
  const std::string good =
      "{\"id\": 1, \"text\": \"one\\u00e9 \\ud83d\\ude00\"}\n{\"meta\": {\"text\": [1, 2.5e3]}, \"text\": "
      "\"two\"}\n";
  expect_no_crash(dir / "bad.jsonl", good, 1000, [&] { read_all(options); });
}

// Heads of other formats, whole or damaged, and texts in other encodings.
TEST(Mutations, FormatsThatAreNoText) {
  const TempDir dir;
  TextOptions options;
  options.inputs = {dir / "bad"}, options.allow_invalid_utf8 = 0.3;
  const std::string text = "caf\u00e9 \u4e2d\U0001F600 \r\n";
  for (const std::string& head :
       {std::string("PK\x03\x04"), std::string("%PDF-1.4\n"), std::string("\xff\xfe", 2),
        std::string("\x5d\0\0", 3), std::string("BZh9\x01")}) {
    expect_no_crash(dir / "bad", head + text + text, 100, [&] { read_all(options); });
  }
}

// Flipped, cut and repeated bytes of compressed files; what unpacks is cut into documents.
TEST(Mutations, CompressedText) {
  const std::string gzip(
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\x48\xcd\xc9\xc9\xe7\x02\x00\x20\x30\x3a\x36\x06\x00\x00"
      "\x00",
      26);
  const std::string zstd("\x28\xb5\x2f\xfd\x20\x06\x31\x00\x00hello\n", 15);
  const TempDir dir;
  TextOptions options;
  options.inputs = {dir / "bad"}, options.document_per = DocumentPer::line;
  if (kHasGzip) expect_no_crash(dir / "bad", gzip + gzip, 1000, [&] { read_all(options); });
  if (kHasZstd) expect_no_crash(dir / "bad", zstd + zstd, 1000, [&] { read_all(options); });
}

}  // namespace
}  // namespace ziggurat
