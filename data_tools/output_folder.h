// The folder that `tokenize` and `convert` write shards to. Its files change only when new ones are complete:
//   .corpus.new/corpus-train-00003.h5.tmp    being written; means nothing
//   .corpus.new/corpus-train-00003.h5        whole and synced; how many there will be is not known yet
//   corpus-train-00003-of-00010.h5           final, and then the manifest
// So a run that was killed leaves the folder as it was, and whole shards that the same command finds again.
// Where shards are replaced, the new ones have names that none of the old ones has: at every moment each
// manifest names a complete set.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data_tools/file_exchange.h"
#include <ziggurat/data/manifest.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/io/folder_lock.h>

namespace ziggurat {

// Makes a folder to write to, and its parents. Error (argument) naming --output and why it cannot be one.
void make_output_folder(const std::filesystem::path& folder);

// Error (argument) unless a name can begin file names in a folder; `option` is told.
void check_source_name(const std::string& source, const char* option);

// The tokenizer in `folder`, if there is any that can be read.
std::unique_ptr<Tokenizer> tokenizer_in(const std::filesystem::path& folder);

// What a run is: shards of an interrupted one are its own only if both are the same.
struct JobIdentity {
  std::string options;  // one line each, "key: value"
  std::string inputs;   // the files, with sizes and times; empty: not known
};

// For JobIdentity::inputs: names, sizes and times; empty if one of them is no file that has these.
std::string identity_of(const std::vector<std::filesystem::path>& files);

struct OutputSet {
  std::filesystem::path folder;
  std::string source;
  std::vector<std::string> splits;  // those that are written, or go if nothing is written of them
  bool overwrite = false;           // else shards of these in the folder are an error
};

// A folder ready to be written to. Nobody else writes there while this lives.
struct PreparedFolder {
  FolderLock lock;
  bool done = false;  // a run of this very job that was killed in its last moment is now finished
};

// Error (config) naming the job that writes into the folder now.
FolderLock lock_to_write(const std::filesystem::path& folder);

class OutputFolder {
 public:
  explicit OutputFolder(OutputSet set);

  // Makes and locks the folder, finishes what a killed finish() left, and looks for shards of an interrupted
  // run: with `resumes` those of the same job are kept. Errors: finished shards, or ones of another
  // interrupted job, without `overwrite`; a tokenizer in the way (data); another process writes there
  // (config). To be called by one process.
  PreparedFolder prepare(const JobIdentity& job, const std::string& tokenizer_fingerprint, bool resumes);

  // Of an unfinished shard, see above.
  std::filesystem::path temporary(size_t split, int64_t shard) const;
  std::filesystem::path whole(size_t split, int64_t shard) const;

  // The whole shard of an interrupted run; one that cannot be read is removed.
  struct Found {
    std::filesystem::path file;
    ShardInfo info;
  };
  std::optional<Found> find(size_t split, int64_t shard) const;

  // Puts whole shards in place, shards[split] of each split, with manifests and, if not null, the tokenizer;
  // what they replace goes. Without any of a split, its old ones go too.
  std::vector<ShardManifest> finish(const std::vector<int64_t>& shards, const Tokenizer* tokenizer) const;

  void discard() const { exchange_.discard(); }  // unfinished shards

 private:
  std::string unfinished_name(size_t split, int64_t shard) const;
  std::vector<std::string> finished_files() const;  // shards and manifests of this set in the folder
  bool has_whole_shards() const;
  void check_tokenizer(const std::string& fingerprint) const;
  ShardManifest describe(size_t split, int64_t shards, const std::string& suffix) const;

  OutputSet set_;
  FileExchange exchange_;
};

}  // namespace ziggurat
