// Checkpoints: named boxes of global tensors, so that any layout loads what any layout saved.
//
//   <dir>/step_00001200/rank_00000.safetensors ...   what each rank owns
//   <dir>/step_00001200/manifest.json                written last: every file's size, hash and slices
//
// A step directory appears by one rename of a temporary sibling (".step_00001200.tmp") after everything in it
// is on the disk; whatever has no manifest, or whose bytes do not match it, is never loaded. One job writes
// to `dir` at a time.
//
// Nothing that another run made, or that could not be read, is removed or overwritten: what stands in the way
// is renamed to "step_00001200.aside_1", a name that no reader looks at.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <ziggurat/checkpoint/safetensors.h>
#include <ziggurat/comm/communicator.h>
#include <ziggurat/tensor/box.h>
#include <ziggurat/tensor/host_pieces.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

// A box of a global tensor. The dtype is that of the data.
struct TensorSlice {
  std::string name;    // the same for all owners
  Shape global_shape;  // rank >= 1
  Box box;
  Tensor data;  // [box.extent], not on a meta device
};

// A slice whose data is made while it is written.
struct SliceHeader {
  std::string name;
  DType dtype = DType::f32;
  Shape global_shape;
  Box box;
  bool zero = false;  // all of it: the manifest says so, and no file holds it
};

// The checkpoints of one run, from its first step through every resumption.
struct Lineage {
  std::string id;           // stands in each of them; empty: unnamed
  std::set<int64_t> whole;  // steps that this job has saved, or read to the last byte
};

struct CheckpointInfo {
  std::string run_id;
  int64_t step = 0;
  nlohmann::json state = nlohmann::json::object();  // data cursor, consumed tokens, seed, ...
  std::string config;                               // text of the effective config
  int keep = 0;                // newest checkpoints of the lineage to keep, this one included; 0: all
  int64_t keep_every = 0;      // and those of every so many steps, for ever
  std::string synced_first;    // a file that is on the disk before the checkpoint counts; empty: none
  Lineage* lineage = nullptr;  // learns what was saved and read; null: unnamed
};

struct SliceRecord {
  std::string name;
  DType dtype = DType::f32;
  Shape global_shape;
  Box box;
  std::string stored_as;  // name in the file; empty: all zero, and in no file
};

struct FileRecord {
  std::string path;  // relative to the step directory; a plain file name
  int64_t bytes = 0;
  std::string hash;  // content_hash
  std::vector<SliceRecord> slices;
};

struct Manifest {
  // 1: slices are rows; 2: no file holds those that are zero; 3: they are boxes. This program writes the last
  // and reads all.
  static constexpr int64_t kFormatVersion = 3, kOldestFormatVersion = 1;
  int64_t format_version = kFormatVersion;  // that it was read in
  std::string run_id;
  int64_t step = 0;
  int64_t world_size = 0;
  std::string created;  // UTC, ISO 8601
  nlohmann::json state;
  std::string config;
  std::vector<FileRecord> files;
};

// Collective. Every rank gives the slices it owns; together they must hold each element of each tensor
// exactly once, and work that writes them must be done. Returns when the checkpoint is committed (Saver, in
// saver.h, does not make its caller wait for the disk). If any rank fails, every rank throws
// Error(checkpoint) naming the rank, path and errno; nothing is committed and older checkpoints are
// untouched. Afterwards removes checkpoints of the same lineage and earlier steps beyond `keep` and
// `keep_every`, where they can be read to the last byte; a failure of that is only logged.
void save_checkpoint(const std::string& dir, const CheckpointInfo& info, std::span<const TensorSlice> slices,
                     Communicator& comm);

// The same of tensors that nobody holds: rank f % size writes the slices of files[f] as if it were rank f,
// and `make` hands the bytes of one slice that is not zero to write(), in as many pieces as it likes. So the
// checkpoint is the same for any number of ranks. Each rank gives all files.
void save_checkpoint(const std::string& dir, const CheckpointInfo& info,
                     std::span<const std::vector<SliceHeader>> files,
                     const std::function<void(const SliceHeader& slice, const WriteBytes& write)>& make,
                     Communicator& comm);

// Removes what killed runs left half-written or half-deleted. Only when no other process saves to `dir`; one
// rank of a job calls it at start (save_checkpoint does so too). A missing `dir` is fine.
void remove_stale_temporaries(const std::string& dir);

// Which run a checkpoint belongs to: Lineage::id; empty if it does not say.
std::string lineage_of(const Manifest& manifest);

// Sets aside everything under the names of later steps than this; returns the new paths. For a run that goes
// on from `step`, so that no other run's later step is ever taken for its own.
std::vector<std::string> set_aside_later(const std::string& dir, int64_t step);

// Step directories below `dir`, newest step first: by their names only, whole or not; of steps below `below`.
std::vector<std::string> step_folders(const std::string& dir, int64_t below = INT64_MAX);

// Those with an intact manifest.
std::vector<std::string> list_checkpoints(const std::string& dir);

// The first of these. Only the manifest has been checked: CheckpointReader verifies the rest.
std::optional<std::string> latest_checkpoint(const std::string& dir);

// One checkpoint. The manifest is checked on opening; every other file's size and hash before the first byte
// of it is used. All errors are Error(checkpoint) naming the file, and the tensor where there is one.
class CheckpointReader {
 public:
  struct TensorInfo {
    DType dtype = DType::f32;
    Shape shape;  // global
  };

  // `path` is a step directory, or a directory of such or with such in checkpoints/: then the newest.
  explicit CheckpointReader(const std::string& path);

  const std::string& path() const { return path_; }  // the step directory
  const Manifest& manifest() const { return manifest_; }
  std::vector<std::string> names() const;  // global tensors
  const TensorInfo& tensor(const std::string& name) const;

  // Fills into.data with the named box. The global shape and dtype must be those saved, or bf16 for f32,
  // which is rounded, or f32 for bf16.
  void read(const TensorSlice& into);

  // From now on a parameter is its average over the training (optimizer.average). Error(argument) where the
  // checkpoint holds none.
  void use_averages();

  // Checks the files i with i % parts == part; files that read() will touch are checked once.
  void verify(int part = 0, int parts = 1);

  // Collective, on the same checkpoint. Checks every file, once on each machine: ranks on one share its
  // files, and take a file for checked that another of them has read, if it is the same one on the disk.
  // Throws the same error on every rank.
  void verify_together(Communicator& comm);

 private:
  struct Piece {
    size_t file;
    const SliceRecord* slice;
  };
  struct Stored {
    TensorInfo info;
    std::vector<Piece> pieces;  // by first row, no overlap
  };

  void index_slices();
  const SafetensorsFile& verified(size_t file);
  void take_as_checked(size_t file, const FileIdentity& by_another_rank);
  const SafetensorsEntry& stored_entry(const SafetensorsFile& file, const SliceRecord& slice) const;

  std::string path_;
  Manifest manifest_;
  std::map<std::string, Stored> tensors_;
  std::vector<std::optional<SafetensorsFile>> files_;  // opened and verified on first use
  HostPieces pieces_;                                  // for tensors of a device
};

struct NewestValid {
  std::optional<CheckpointReader> reader;  // none: no checkpoint is usable
  std::vector<std::string> skipped;        // why newer ones were not taken, newest first
};

// Collective. The newest checkpoint of a step below `below` of which every byte is verified
// (verify_together).
NewestValid open_newest_valid(const std::string& dir, Communicator& comm, int64_t below = INT64_MAX);

}  // namespace ziggurat
