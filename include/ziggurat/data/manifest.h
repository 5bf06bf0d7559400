// A manifest lists the shards of one split of one source, with sizes and hashes. It is written last, so where
// it stands everything it names is whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <ziggurat/data/shard.h>

namespace ziggurat {

struct ShardManifest {
  struct Shard {
    std::string file;  // beside the manifest
    int64_t n_tokens = 0, n_docs = 0, bytes = 0;
    std::string xxh3;  // XXH3-128 of the whole file; empty: not known
  };
  std::filesystem::path folder;  // where the shards lie; not written
  std::string source, split, tokenizer, tokenizer_sha256;
  int64_t vocab_size = 0, eod_id = -1;
  std::vector<Shard> shards;

  int64_t n_tokens() const;
  int64_t n_docs() const;
};

// <source>-<split>.json and <source>-<split>-<iiiii>-of-<nnnnn>.h5
std::string manifest_name(const std::string& source, const std::string& split);
std::string shard_name(const std::string& source, const std::string& split, int64_t shard, int64_t shards);

// The entry of a finished shard file: its size and hash are read from the disk.
// Without shards yet; tokenizer, vocabulary, source and split as those of the shard `common`.
ShardManifest new_manifest(const std::filesystem::path& folder, const ShardInfo& common);
ShardManifest::Shard describe_shard(const std::filesystem::path& file, const ShardInfo& info);

void write_manifest(const ShardManifest& manifest);  // into manifest.folder, atomically

// `path`: a manifest, or a folder with exactly one manifest of `split`, or a single .h5 file (then the list
// has one shard and nothing is known of its hash). Errors (data) name the path and what was looked for.
ShardManifest read_manifest(const std::filesystem::path& path, const std::string& split);

// Error (data) naming the first shard whose size or hash differs from the manifest.
void verify_files(const ShardManifest& manifest);

}  // namespace ziggurat
