// Tokens on disk: HDF5 files, each an ordinary `data` list of token ids that any HDF5 tool can read.
//   /data         u16 LE (u32 LE if vocab_size >= 65,500) [n_tokens], contiguous, no filter, 4 KiB aligned
//   /doc_offsets  i64 [n_docs + 1]: token offsets of the documents; first 0, last n_tokens
//   /crc32c       u32 per block of 2^20 tokens of /data
//   attributes of the root: the fields of ShardInfo and `format`, `version`
// Files made elsewhere that only have /data (of any integer type, chunked or compressed) can be read too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace ziggurat {

inline constexpr int64_t kCrcBlockTokens = int64_t{1} << 20;

struct ShardInfo {
  int64_t n_tokens = 0, n_docs = 0;
  int64_t vocab_size = 0;  // 0: a foreign file that does not say
  int64_t eod_id = -1;
  bool eod_appended = false;      // every document ends in eod_id
  std::string tokenizer;          // kind
  std::string tokenizer_sha256;   // Tokenizer::fingerprint()
  std::string unicode_version;    // of the split rule's tables
  std::string normalisation;      // what was done to the text before, e.g. "bom,crlf"
  std::string source, split;      // e.g. "books", "train"
  int64_t shard = 0, shards = 0;  // number and how many
  std::string created_by;
  std::string text_xxh3;  // of the documents' text: what an interrupted `tokenize` knows its shards by
};

// Collects documents and writes them as one shard.
class ShardBuilder {
 public:
  explicit ShardBuilder(ShardInfo common) : info_(std::move(common)) {}

  // Part of the document under way. Error (internal) for an id outside [0, vocab_size).
  void add(std::span<const int32_t> ids);
  void end_document() { doc_offsets_.push_back(tokens()); }
  // A whole document.
  void append(std::span<const int32_t> ids) { add(ids), end_document(); }
  int64_t tokens() const { return static_cast<int64_t>(wide() ? tokens32_.size() : tokens16_.size()); }
  int64_t documents() const { return static_cast<int64_t>(doc_offsets_.size()) - 1; }
  // The number of the shard under way, if they are not written one after the other, and its text_xxh3.
  void set_shard(int64_t shard, std::string text_xxh3) {
    info_.shard = shard, info_.text_xxh3 = std::move(text_xxh3);
  }
  // Writes everything appended since the last write to `path` (not yet synced) and starts the next shard.
  // Returns what was written. `shards` is not known yet and stays 0: see finish_shard.
  ShardInfo write(const std::filesystem::path& path);

 private:
  bool wide() const { return info_.vocab_size >= 65500; }
  ShardInfo info_;
  std::vector<uint16_t> tokens16_;
  std::vector<uint32_t> tokens32_;
  std::vector<int64_t> doc_offsets_ = {0};
};

// Syncs a written shard and renames it: from then on it is whole, under a name that does not say how many
// there are.
void commit_shard(const std::filesystem::path& from, const std::filesystem::path& to);

// Records in the file `from` how many shards there are, syncs it and renames it to `to`.
void finish_shard(const std::filesystem::path& from, const std::filesystem::path& to, int64_t shards);

// One open shard; any number of threads may read it. HDF5 is asked once where /data lies, then the file is
// mapped; a chunked, compressed or otherwise typed /data is read through HDF5 under a lock (slow).
class ShardReader {
 public:
  // Errors (data): missing, truncated, no /data, inconsistent attributes; each names the file.
  explicit ShardReader(const std::filesystem::path& path);
  ~ShardReader();
  ShardReader(ShardReader&&) noexcept;
  ShardReader& operator=(ShardReader&&) noexcept;

  const ShardInfo& info() const;
  const std::filesystem::path& path() const;
  int64_t size() const { return info().n_tokens; }
  bool mapped() const;  // false: reads go through HDF5

  // tokens[i] = token first + i for i in [0, count); [first, first + count) must lie in [0, size()).
  void read(int64_t first, int64_t count, int32_t* tokens) const;

  // Starts reading these tokens from the disk, does not wait.
  void prefetch(int64_t first, int64_t count) const;

  std::vector<int64_t> doc_offsets() const;        // empty if the file has none
  const std::vector<uint32_t>& checksums() const;  // per block; empty if the file has none
  // SHA-256 (hex) that changes with the tokens: of the checksums. Of a file without any, of 16 samples of
  // 4,096 tokens spread over it, or all of fewer: opening must not read terabytes. Tokens changed in place
  // between the samples go unseen, tokens added or taken away do not. No time stamps: a copy is the same
  // shard.
  std::string fingerprint() const;
  // Blocks whose checksum is wrong.
  std::vector<int64_t> damaged_blocks() const;
  // Error (data) naming file and first damaged block, a bad /doc_offsets, or an id outside the vocabulary.
  void verify() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ziggurat
