// `ziggurat data train-tokenizer` and `ziggurat data tokenize`: from text to a tokenizer and to shards.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data_tools/output_folder.h"
#include <ziggurat/data/manifest.h>
#include <ziggurat/data/text.h>

namespace ziggurat {

struct TrainTokenizerOptions {
  TextOptions text;
  int32_t vocab_size = 8192;
  int64_t max_bytes = 0;         // stop reading after so much text; 0: read all
  std::filesystem::path output;  // folder
  bool overwrite = false;        // else a tokenizer in `output` is an error
};

// Writes <output>/tokenizer.json, at once and at the end. Error (data), before anything is read: a tokenizer
// is there, or shards are, which would lose theirs.
void train_tokenizer(const TrainTokenizerOptions& options);

// How text is divided between train, valid and test.
//   document  whole documents, by a hash of their bytes: needs hundreds of documents
//   text      every document is cut at the fractions of its bytes: for a single file
enum class SplitBy { document, text };

struct TokenizeOptions {
  TextOptions text;
  std::filesystem::path tokenizer;                   // for load_tokenizer
  std::filesystem::path output;                      // folder
  std::string source = "corpus";                     // name, first part of all file names
  std::array<double, 3> split = {0.98, 0.01, 0.01};  // train, valid, test; sum 1
  SplitBy split_by = SplitBy::document;
  // Text of a shard; a longer document has a shard of its own. Counted in bytes of text, not in tokens, so
  // that it is known which document goes where before anything is encoded: ranks share the shards, and a
  // resumed run skips the finished ones. 512 MiB of English are about 130 M tokens, 270 MB.
  int64_t shard_bytes = int64_t{512} << 20;
  bool append_eod = true;
  // Leave out documents whose normalised text came before. Holds 16 bytes and a hash table slot per document.
  bool deduplicate = false;
  // Replace the shards of this source in `output`, which stay until all new ones are whole; else they are an
  // error.
  bool overwrite = false;
};

inline constexpr std::array<const char*, 3> kSplitNames = {"train", "valid", "test"};

// What the text came to. The same on every rank, for every rank reads all of it.
struct TokenizeSummary {
  std::array<int64_t, 3> shards = {};
  int64_t documents = 0, duplicates = 0;
  int64_t resumed_shards = 0;  // found finished (of this rank's)
};

// The three steps of `tokenize`; between two of them ranks wait for one another.
// 1. On one rank, before anything is written: checks options, tokenizer and that the input is there, then see
//    OutputFolder::prepare. With `done` steps 2 and 3 are not wanted.
PreparedFolder prepare_shards(const TokenizeOptions& options, int ranks = 1);
// 2. On every rank: reads all the text, encodes and writes each `ranks`-th shard with thread_count() threads.
//    Shards of an interrupted run are kept if their text is the same. The bytes written depend on text,
//    tokenizer and options only, not on ranks, threads or interruptions. Errors (data): no text, a split
//    stays empty, the text changed since the interrupted run; the message says what to change.
TokenizeSummary write_shards(const TokenizeOptions& options, int rank, int ranks);
// 3. On one rank: final names, one manifest per split with a fraction above 0, and the tokenizer. What these
//    replace goes.
std::vector<ShardManifest> finish_shards(const TokenizeOptions& options, const TokenizeSummary& summary);

// All three, alone.
std::vector<ShardManifest> tokenize_text(const TokenizeOptions& options);

}  // namespace ziggurat
