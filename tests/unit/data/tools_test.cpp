// From text to tokenizer to shards and back, as the sub-commands do it.
#include <cmath>
#include <csignal>
#include <map>
#include <sstream>

#include <sys/resource.h>

#include "data_tools/inspect.h"
#include "data_tools/tokenize.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/core/philox.h>
#include <ziggurat/data/dataset.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

// `count` documents of made-up words, and a tokenizer trained on them.
class DataTools : public ::testing::Test {
 protected:
  void make_corpus(int count) {
    const Philox random(5, Purpose::test);
    const std::vector<std::string> words = {"river", "stone", "the", "a", "over", "carries", "light", "dark"};
    for (int d = 0; d < count; ++d) {
      std::string text = "document " + std::to_string(d) + ":";
      for (uint64_t w = 0; w < 60; ++w) {
        text += " " + words[random.bits(static_cast<uint64_t>(d) * 64 + w) % words.size()];
      }
      write_text(dir / ("text/" + std::to_string(1000 + d) + ".txt"), text + ".\n");
      texts.push_back(text + ".\n");
    }
    TrainTokenizerOptions train;
    train.text.inputs = {dir / "text"};
    train.vocab_size = 290, train.output = dir / "tokenizer";
    train_tokenizer(train);
  }

  TokenizeOptions options(const std::string& output) const {
    TokenizeOptions o;
    o.text.inputs = {dir / "text"};
    o.tokenizer = dir / "tokenizer", o.output = dir / output, o.split = {0.8, 0.1, 0.1};
    return o;
  }

  // Texts of all documents in the shards of a split.
  std::vector<std::string> documents_in(const std::string& output, const std::string& split) const {
    const auto tokenizer = load_tokenizer(dir / output);
    const TokenStream stream(read_manifest(dir / output, split));
    std::vector<std::string> documents;
    for (const ShardReader& shard : stream.shards()) {
      const std::vector<int64_t> offsets = shard.doc_offsets();
      for (size_t d = 0; d + 1 < offsets.size(); ++d) {
        std::vector<int32_t> ids(static_cast<size_t>(offsets[d + 1] - offsets[d]));
        shard.read(offsets[d], static_cast<int64_t>(ids.size()), ids.data());
        EXPECT_EQ(ids.back(), tokenizer->eod_id());
        ids.pop_back();
        documents.push_back(tokenizer->decode(ids));
      }
    }
    return documents;
  }

  const TempDir dir;
  std::vector<std::string> texts;
};

TEST_F(DataTools, EveryDocumentIsInExactlyOneSplit) {
  make_corpus(150);
  TokenizeOptions o = options("shards");
  o.shard_bytes = 4000;
  tokenize_text(o);
  std::vector<std::string> all;
  for (const char* split : kSplitNames) {
    const auto documents = documents_in("shards", split);
    EXPECT_FALSE(documents.empty());
    all.insert(all.end(), documents.begin(), documents.end());
    verify_files(read_manifest(dir / "shards", split));
  }
  std::sort(all.begin(), all.end());
  std::sort(texts.begin(), texts.end());
  EXPECT_EQ(all, texts);
  // No shard is larger than asked for, and no document straddles two.
  const ShardManifest train = read_manifest(dir / "shards", "train");
  EXPECT_GT(train.shards.size(), 3u);
  for (const auto& shard : train.shards) EXPECT_LE(shard.n_tokens, 4000);
  for (const auto& entry : std::filesystem::directory_iterator(dir / "shards")) {
    EXPECT_NE(entry.path().extension(), ".tmp");
  }
}

TEST_F(DataTools, SplitDependsOnTheDocumentOnly) {
  make_corpus(60);
  tokenize_text(options("all"));
  const auto before = documents_in("all", "valid");
  for (int d = 0; d < 30; ++d)
    std::filesystem::remove(dir / ("text/" + std::to_string(1000 + 2 * d) + ".txt"));
  TokenizeOptions o = options("half");
  o.split = {0.8, 0.2, 0};  // valid and test together are the same documents as before
  tokenize_text(o);
  for (const auto& document : documents_in("half", "train")) {
    EXPECT_EQ(std::count(before.begin(), before.end(), document), 0);
  }
}

TEST_F(DataTools, BytesDoNotDependOnThreads) {
  make_corpus(40);
  write_text(dir / "text/long.txt", [] {
    std::string text;
    while (text.size() < (size_t{3} << 20)) text += "the river carries light over stone ";
    return text;
  }());
  const int threads = thread_count();
  for (const int n : {1, 2, 3}) {
    set_thread_count(n);
    TokenizeOptions o = options("threads" + std::to_string(n));
    o.split = {0.7, 0.2, 0.1};
    tokenize_text(o);
  }
  set_thread_count(threads);
  for (const auto& entry : std::filesystem::directory_iterator(dir / "threads1")) {
    const std::string name = entry.path().filename().string();
    EXPECT_EQ(read_text(entry.path()), read_text(dir / ("threads2/" + name))) << name;
    EXPECT_EQ(read_text(entry.path()), read_text(dir / ("threads3/" + name))) << name;
  }
}

std::map<std::string, std::string> files_in(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files[entry.path().filename().string()] = read_text(entry.path());
  }
  return files;
}

TEST_F(DataTools, BytesDoNotDependOnRanks) {
  make_corpus(60);
  TokenizeOptions o = options("alone");
  o.shard_bytes = 3000;
  tokenize_text(o);
  for (const int ranks : {2, 3}) {
    o.output = dir / ("ranks" + std::to_string(ranks));
    prepare_shards(o);
    TokenizeSummary summary;
    for (int rank = ranks - 1; rank >= 0; --rank) summary = write_shards(o, rank, ranks);
    finish_shards(o, summary);
    EXPECT_EQ(files_in(o.output), files_in(dir / "alone"));
  }
}

TEST_F(DataTools, AnInterruptedRunIsResumed) {
  make_corpus(60);
  TokenizeOptions o = options("through");
  o.shard_bytes = 3000;
  tokenize_text(o);
  // What a kill leaves: one rank of two has written its shards, another file is half-written, one damaged.
  o.output = dir / "killed";
  prepare_shards(o);
  write_shards(o, 0, 2);
  write_text(dir / "killed/.corpus.new/corpus-train-00001.h5.tmp", "half");
  write_text(dir / "killed/.corpus.new/corpus-train-00000.h5",
             read_text(dir / "killed/.corpus.new/corpus-train-00000.h5").substr(0, 3000));
  const auto kept = std::filesystem::last_write_time(dir / "killed/.corpus.new/corpus-train-00002.h5");
  prepare_shards(o);
  const TokenizeSummary summary = write_shards(o, 0, 1);
  EXPECT_GE(summary.resumed_shards, 1);
  EXPECT_EQ(std::filesystem::last_write_time(dir / "killed/.corpus.new/corpus-train-00002.h5"), kept);
  finish_shards(o, summary);
  EXPECT_EQ(files_in(dir / "killed"), files_in(dir / "through"));

  // Shards of other options are not taken for this run.
  o.output = dir / "switched";
  prepare_shards(o);
  write_shards(o, 0, 2);
  o.text.line_ends = LineEnds::keep;
  EXPECT_NE(error_of(ErrorKind::data, [&] { tokenize_text(o); }).find("--overwrite"), std::string::npos);
  o.text.line_ends = LineEnds::lf;

  // Nor are those of other text.
  o.output = dir / "changed";
  prepare_shards(o);
  write_shards(o, 0, 2);
  write_text(dir / "text/1000.txt", "changed since");
  write_text(dir / "text/1001.txt", "changed since, too");
  EXPECT_NE(error_of(ErrorKind::data, [&] { tokenize_text(o); }).find("--overwrite"), std::string::npos);
}

TEST_F(DataTools, DuplicatesAreLeftOut) {
  make_corpus(30);
  write_text(dir / "text/2000.txt", "\xef\xbb\xbf" + texts[3]);  // the same once normalised
  TokenizeOptions o = options("once");
  o.split = {1, 0, 0}, o.deduplicate = true;
  EXPECT_EQ(tokenize_text(o)[0].n_docs(), 30);
  o.deduplicate = false, o.overwrite = true;
  EXPECT_EQ(tokenize_text(o)[0].n_docs(), 31);
}

TEST_F(DataTools, PlainBytesAsTokens) {
  make_corpus(10);
  TokenizeOptions o = options("bytes");
  o.split = {1, 0, 0}, o.tokenizer = "bytes";
  tokenize_text(o);
  EXPECT_EQ(load_tokenizer(dir / "bytes")->kind(), "bytes");
  EXPECT_EQ(load_tokenizer(dir / "bytes")->vocab_size(), 257);
  EXPECT_EQ(documents_in("bytes", "train"), texts);
}

TEST_F(DataTools, OneFileIsSplitByText) {
  make_corpus(3);
  std::string text;
  for (int i = 0; i < 500; ++i) text += "caf\u00e9 ";
  write_text(dir / "one.txt", text);
  TokenizeOptions o = options("one");
  o.text.inputs = {dir / "one.txt"};
  EXPECT_NE(error_of(ErrorKind::data, [&] { tokenize_text(o); }).find("--split-by text"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(dir / "one/corpus-train.json"));
  o.split_by = SplitBy::text;
  tokenize_text(o);
  const std::string train = documents_in("one", "train").at(0), valid = documents_in("one", "valid").at(0);
  EXPECT_EQ(train + valid + documents_in("one", "test").at(0), text);
  // At 0.8 of the bytes, moved back to the start of a character.
  const size_t expected = text.size() * 8 / 10;
  EXPECT_LE(train.size(), expected);
  EXPECT_GE(train.size() + 3, expected);
  EXPECT_NE(static_cast<uint8_t>(valid[0]) & 0xc0, 0x80);
}

TEST_F(DataTools, ExistingShardsAreKeptUnlessToldOtherwise) {
  make_corpus(60);
  tokenize_text(options("out"));
  const std::string manifest = read_text(dir / "out/corpus-train.json");
  EXPECT_NE(error_of(ErrorKind::data, [&] { tokenize_text(options("out")); }).find("--overwrite"),
            std::string::npos);
  TokenizeOptions o = options("out");
  o.overwrite = true, o.shard_bytes = 2500;
  tokenize_text(o);
  EXPECT_NE(read_text(dir / "out/corpus-train.json"), manifest);
  EXPECT_FALSE(std::filesystem::exists(dir / ("out/" + shard_name("corpus", "train", 0, 1))));
}

TEST_F(DataTools, BadInputIsNamed) {
  make_corpus(3);
  TokenizeOptions o = options("bad");
  o.split = {0.5, 0.1, 0.1};
  error_of(ErrorKind::argument, [&] { tokenize_text(o); });
  o = options("bad");
  o.shard_bytes = 0;
  error_of(ErrorKind::argument, [&] { tokenize_text(o); });
  write_text(dir / "empty.txt", "");
  o = options("bad");
  o.text.inputs = {dir / "empty.txt"};
  EXPECT_NE(error_of(ErrorKind::data, [&] { tokenize_text(o); }).find("no text"), std::string::npos);
}

TEST_F(DataTools, StandardInputGoesToOneRank) {
  make_corpus(3);
  TokenizeOptions o = options("stdin");
  o.text.inputs = {"-"};
  EXPECT_NE(error_of(ErrorKind::argument, [&] { write_shards(o, 1, 2); }).find("standard input"),
            std::string::npos);
}

TEST_F(DataTools, EmptyDocumentsAreNone) {
  make_corpus(3);
  write_text(dir / "text/0000.txt", "");
  write_text(dir / "text/0001.txt", "\xef\xbb\xbf");
  TokenizeOptions o = options("empty");
  o.split = {1, 0, 0};
  EXPECT_EQ(tokenize_text(o)[0].n_docs(), 3);
  EXPECT_EQ(documents_in("empty", "train"), texts);
}

// A text of many segments goes through several batches; its ids are those of encoding it in one go.
TEST_F(DataTools, ALongDocumentIsEncodedInPiecesAsInOne) {
  make_corpus(3);
  std::string text;
  for (int i = 0; text.size() < (size_t{20} << 20); ++i) {
    text += "the river " + std::to_string(i) + (i % 5 ? " carries light " : "\n\nover stone,  ");
  }
  write_text(dir / "one.txt", text);
  TokenizeOptions o = options("long");
  o.text.inputs = {dir / "one.txt"}, o.split = {1, 0, 0};
  tokenize_text(o);
  std::vector<int32_t> expected = load_tokenizer(dir / "tokenizer")->encode(text);
  expected.push_back(load_tokenizer(dir / "tokenizer")->eod_id());
  const TokenStream stream(read_manifest(dir / "long", "train"));
  std::vector<int32_t> ids(static_cast<size_t>(stream.size()));
  stream.read(0, stream.size(), ids.data());
  EXPECT_EQ(ids, expected);
}

// In a child process, since the limit cannot be lifted again.
TEST_F(DataTools, AFullDiskLeavesOnlyWholeShards) {
  make_corpus(60);
  TokenizeOptions o = options("full");
  o.split = {1, 0, 0}, o.shard_bytes = 6000;
  write_text(dir / "text/1050.txt",
             std::string(200000, 'x') + "the river");  // a shard too large for the disk
  EXPECT_EXIT(
      {
        std::signal(SIGXFSZ, SIG_IGN);
        rlimit limit;
        limit.rlim_cur = limit.rlim_max = 65536;
        ::setrlimit(RLIMIT_FSIZE, &limit);
        try {
          tokenize_text(o);
        } catch (const Error& e) {
          std::fputs(e.what(), stderr);
          std::exit(exit_code(e.kind()));
        }
        std::exit(0);
      },
      ::testing::ExitedWithCode(3), "corpus-train-000.*make room");
  size_t whole = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir / "full/.corpus.new")) {
    if (entry.path().filename() == "job.json") continue;
    EXPECT_EQ(entry.path().extension(), ".h5") << entry.path();
    ShardReader(entry.path()).verify();
    ++whole;
  }
  EXPECT_GT(whole, 0u);
  EXPECT_GT(tokenize_text(o)[0].shards.size(), 2u);  // with room again it goes on
}

TEST_F(DataTools, VerifyGoesOnPastTheFirstDamage) {
  const ShardManifest manifest = counting_shards(dir.path(), {3000, 3000, 3000});
  std::ostringstream good;
  verify_shards(dir.path(), "train", good);
  // The middle of a file of 3000 tokens lies in /data, which is aligned to 4 KiB.
  for (const size_t i : {0, 2}) {
    const auto file = dir / manifest.shards[i].file;
    const std::string bytes = read_text(file);
    const size_t at =
        bytes.find(std::string("\x01\x00\x02\x00\x03\x00", 6));  // tokens 1, 2, 3 of the first shard
    flip_bit(file, static_cast<int64_t>(at == std::string::npos ? bytes.size() / 2 : at));
  }
  std::ostringstream out;
  error_of(ErrorKind::data, [&] { verify_shards(dir.path(), "train", out); });
  EXPECT_NE(out.str().find(manifest.shards[0].file + ": BAD"), std::string::npos) << out.str();
  EXPECT_NE(out.str().find(manifest.shards[1].file + ": good"), std::string::npos) << out.str();
  EXPECT_NE(out.str().find(manifest.shards[2].file + ": BAD"), std::string::npos) << out.str();
}

TEST_F(DataTools, BaselinesAreTheirFormulas) {
  // Train: 0, 1, 2, 3; vocabulary 8. Valid: 0, 1. Every seen token has probability (1 + 1) / (4 + 8).
  counting_shards(dir.path(), {4}, 8, "train");
  counting_shards(dir.path(), {2}, 8, "valid");
  const BaselineLoss loss = baseline_loss(dir.path(), dir.path());
  EXPECT_DOUBLE_EQ(loss.uniform, std::log(8.0));
  EXPECT_DOUBLE_EQ(loss.unigram, std::log(6.0));
  EXPECT_EQ(loss.distinct_tokens, 4);
}

}  // namespace
}  // namespace ziggurat
