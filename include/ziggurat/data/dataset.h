// The stream of training samples of one source. All shards of a split are one sequence of tokens; sample j is
// its tokens [j*S, j*S + S], so neighbours overlap by one token and every token but the first is predicted
// once. (The Megatron order puts the documents into another sequence first.)
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ziggurat/data/manifest.h>
#include <ziggurat/data/sample_order.h>
#include <ziggurat/data/sample_source.h>
#include <ziggurat/data/shard.h>

namespace ziggurat {

class MegatronOrder;

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

  // Starts reading tokens [first, first + count) from the disk, does not wait.
  void prefetch(int64_t first, int64_t count) const;

  // Where the documents begin: token offsets of all documents of all shards, and the total. Error (data)
  // naming a shard that lists no documents.
  std::vector<int64_t> document_starts() const;

  // Of the content, as lines: the tokenizer, then size and hash of the checksums of every shard.
  std::string fingerprint() const;

 private:
  size_t index_of(int64_t position) const;

  std::vector<ShardReader> shards_;
  std::vector<int64_t> starts_;  // [shards + 1] first token of each shard, and the total
  int64_t vocab_size_ = 0, eod_id_ = -1;
  std::string tokenizer_sha256_;
};

struct DatasetOptions {
  int64_t sequence_length = 0;  // S >= 1
  int64_t vocab_size = 0;       // of the model: ids at or past it are an error; 0: do not check
  int64_t sentinels = 0;        // ids that the model has besides, which are no text: errors name them
  uint64_t seed = 1234;
  OrderKind order = OrderKind::keyed;
  int64_t samples = 0;         // megatron: of the whole run, at least 1
  bool shuffle = true;         // keyed: false for validation
  bool mask_eod_loss = false;  // targets are -1 where the input is the end-of-document token
  int64_t verify_below = 0;    // check all checksums on opening if there are at most this many tokens
};

class Dataset final : public SampleSource {
 public:
  // `path` and `split` as for read_manifest. Errors (data): no shards, fewer than S + 1 tokens, a vocabulary
  // larger than the model's, no documents for the Megatron order.
  Dataset(const std::filesystem::path& path, const std::string& split, const DatasetOptions& options);
  ~Dataset() override;

  int64_t sequence_length() const { return options_.sequence_length; }
  const TokenStream& stream() const { return stream_; }

  int64_t samples_per_epoch() const override { return samples_per_epoch_; }  // (tokens - 1) / S
  // Error (data) naming shard and position of a token outside the model's vocabulary.
  void load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const override;
  int32_t eod_id() const override { return static_cast<int32_t>(stream_.eod_id()); }
  void prefetch(int64_t first, int64_t count) const override;
  std::string fingerprint() const override;
  std::string tokenizer_sha256() const override { return stream_.tokenizer_sha256(); }

 private:
  // Calls body(first token in the stream, count) for the parts that make up sample `position`.
  template <class Body>
  void for_each_part(int64_t position, const Body& body) const;
  void check_vocabulary(const int32_t* tokens, int64_t first_token, int64_t count) const;

  DatasetOptions options_;
  TokenStream stream_;
  int64_t samples_per_epoch_;
  SampleOrder order_;
  std::unique_ptr<MegatronOrder> megatron_;  // null for the keyed order
};

}  // namespace ziggurat
