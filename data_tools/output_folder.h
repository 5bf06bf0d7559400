// The folder that `tokenize` writes to. A shard passes through three names:
//   corpus-train-00003.h5.tmp          being written; means nothing
//   corpus-train-00003.h5              whole and synced; how many there will be is not known yet
//   corpus-train-00003-of-00010.h5     final, once all shards are there; then come the manifests
// So a run that was killed leaves only .tmp files that mean nothing and shards that the next run keeps.
#pragma once

#include <array>
#include <optional>

#include "data_tools/tokenize.h"

namespace ziggurat {

class OutputFolder {
 public:
  explicit OutputFolder(const TokenizeOptions& options) : options_(options) {}

  // Makes the folder and removes half-written files; with options.overwrite also all shards and manifests of
  // this source. Error (data) if a finished run of this source lies there. To be called by one process.
  void prepare() const;

  std::filesystem::path temporary(size_t split, int64_t shard) const;
  std::filesystem::path whole(size_t split, int64_t shard) const;

  // The whole shard of an interrupted run, under either name; one that cannot be read is removed.
  struct Found {
    std::filesystem::path file;
    ShardInfo info;
  };
  std::optional<Found> find(size_t split, int64_t shard) const;

  // Gives all shards of a split their final names and writes the manifest.
  ShardManifest finish(size_t split, int64_t shards) const;

 private:
  bool is_ours(const std::string& name, size_t split) const;  // a shard of this source and split
  const TokenizeOptions& options_;
};

}  // namespace ziggurat
