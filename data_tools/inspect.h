// `ziggurat data inspect|verify|sample|stats`: what is in the shards. `path` and `split` as for
// read_manifest.
#pragma once

#include <cstdint>
#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

namespace ziggurat {

// Attributes and sizes of every shard.
void inspect_shards(const std::filesystem::path& path, const std::string& split, std::ostream& out);

// Sizes and hashes against the manifest, every checksum, document offsets and ids. Prints a line per shard
// and throws the first error (data) after all shards were looked at.
void verify_shards(const std::filesystem::path& path, const std::string& split, std::ostream& out);

struct SampleOptions {
  std::filesystem::path path, tokenizer;
  std::string split = "train";
  int64_t position = 0;  // in the stream of tokens
  int64_t count = 200;   // tokens
};
// The text of some tokens.
void print_sample(const SampleOptions& options, std::ostream& out);

// Token frequencies of a split, and how well the simplest models predict: the yardsticks for a loss, in nats
// per token.
struct TokenStats {
  std::vector<int64_t> counts;  // [vocab_size]
  int64_t tokens = 0, distinct = 0;
  double entropy = 0;  // of the frequencies: what the best unigram model loses on these very tokens
};
TokenStats token_stats(const std::filesystem::path& path, const std::string& split);

struct BaselineLoss {
  double uniform = 0;  // ln(vocab_size)
  double unigram = 0;  // cross-entropy on valid of the token frequencies of train, add-one smoothed
  int64_t train_tokens = 0, valid_tokens = 0,
          distinct_tokens = 0;  // distinct: of the vocabulary seen in train
};
BaselineLoss baseline_loss(const std::filesystem::path& train, const std::filesystem::path& valid);

struct StatsOptions {
  std::filesystem::path train, valid, tokenizer;  // valid and tokenizer: empty for those beside train
  int64_t top = 20;
};
void print_stats(const StatsOptions& options, std::ostream& out);

}  // namespace ziggurat
