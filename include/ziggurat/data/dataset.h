// The stream of training samples. All shards of a split are one sequence of tokens; sample j is its tokens
// [j*S, j*S + S], so neighbours overlap by one token and every token but the first is predicted once. Which
// sample comes i-th is a function of (seed, i) only: ranks take slices of the global order, and a restart on
// another number of ranks sees the same order.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <ziggurat/data/manifest.h>
#include <ziggurat/data/sample_order.h>
#include <ziggurat/data/shard.h>

namespace ziggurat {

// All shards of a manifest, end to end. Reading is thread-safe.
class TokenStream {
 public:
  // Opens every shard (attributes only). Errors (data): a shard is missing or damaged, differs from the
  // manifest, or comes from another tokenizer than its neighbours; all name the file.
  explicit TokenStream(const ShardManifest& manifest);

  int64_t size() const { return starts_.back(); }
  int64_t vocab_size() const { return vocab_size_; }
  int64_t eod_id() const { return eod_id_; }
  const std::string& tokenizer_sha256() const { return tokenizer_sha256_; }
  const std::vector<ShardReader>& shards() const { return shards_; }

  // Tokens [first, first + count), across shard borders.
  void read(int64_t first, int64_t count, int32_t* tokens) const;
  // The shard that holds token `position`.
  const ShardReader& shard_at(int64_t position) const;
  void verify() const;  // every checksum; error (data) names shard and block

  // Of the content: sizes and checksums of all shards, and the tokenizer.
  std::string fingerprint() const;

 private:
  size_t index_of(int64_t position) const;

  std::vector<ShardReader> shards_;
  std::vector<int64_t> starts_;  // [shards + 1] first token of each shard, and the total
  int64_t vocab_size_ = 0, eod_id_ = -1;
  std::string tokenizer_sha256_;
};

// The whole state of a loader: how many samples of the global order are used up.
struct DataCursor {
  int64_t consumed_samples = 0;
};

struct DatasetOptions {
  int64_t sequence_length = 0;  // S >= 1
  int64_t vocab_size = 0;       // of the model: ids at or past it are an error; 0: do not check
  uint64_t seed = 1234;
  bool shuffle = true;       // false for validation
  int64_t verify_below = 0;  // check all checksums on opening if there are at most this many tokens
};

class Dataset {
 public:
  // `path` and `split` as for read_manifest. Errors (data): no shards, fewer than S + 1 tokens, a vocabulary
  // larger than the model's.
  Dataset(const std::filesystem::path& path, const std::string& split, const DatasetOptions& options);

  int64_t sequence_length() const { return options_.sequence_length; }
  int64_t samples_per_epoch() const { return order_.samples_per_epoch(); }  // (tokens - 1) / S
  const TokenStream& stream() const { return stream_; }

  // The samples at positions [first, first + count) of the global order:
  //   tokens  [count, S]  what the model reads
  //   targets [count, S]  the token after each
  // Thread-safe. Error (data) naming shard and position of a token outside the model's vocabulary.
  void load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const;

  // What must be the same for a checkpoint's cursor to mean the same samples: content, seed, order and S.
  std::string fingerprint() const;

 private:
  void check_vocabulary(const int32_t* window, int64_t first_token) const;

  DatasetOptions options_;
  TokenStream stream_;
  SampleOrder order_;
};

}  // namespace ziggurat
