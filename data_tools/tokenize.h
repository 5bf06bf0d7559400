// `ziggurat data train-tokenizer` and `ziggurat data tokenize`: from text to a tokenizer and to shards.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <ziggurat/data/manifest.h>
#include <ziggurat/data/text.h>

namespace ziggurat {

struct TrainTokenizerOptions {
  TextOptions text;
  int32_t vocab_size = 8192;
  int64_t max_bytes = 0;         // stop reading after so much text; 0: read all
  std::filesystem::path output;  // folder
};

// Writes <output>/tokenizer.json.
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
  int64_t shard_tokens = int64_t{1} << 27;  // most tokens of a shard (256 MiB)
  bool append_eod = true;
  bool overwrite = false;  // else existing shards of this source in `output` are an error
};

inline constexpr std::array<const char*, 3> kSplitNames = {"train", "valid", "test"};

// Writes the shards, a copy of tokenizer.json and, last, one manifest per split with a fraction above 0.
// The bytes written depend on text, tokenizer and options only, not on the number of threads.
// Returns the manifests. Errors (data): no text, a split stays empty; the message says what to change.
std::vector<ShardManifest> tokenize_text(const TokenizeOptions& options);

}  // namespace ziggurat
