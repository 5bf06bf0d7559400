#include <algorithm>
#include <filesystem>
#include <numeric>
#include <set>

#include "manifest.h"
#include "posix_file.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/comm/agreement.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/utc.h>

namespace ziggurat {

namespace fs = std::filesystem;

namespace {

// A leading dot and this ending mark what no reader looks at and anybody may remove.
constexpr std::string_view kTemporaryEnding = ".tmp";

// A whole tensor keeps its name, so that a checkpoint of one rank is a plain safetensors file.
std::string stored_name(const SliceHeader& s) {
  const bool whole = s.row_begin == 0 && s.row_end == s.global_shape[0];
  return whole ? s.name : fmt::format("{}[{}:{}]", s.name, s.row_begin, s.row_end);
}

using MakeSlice = std::function<void(size_t slice, const WriteBytes& write)>;

FileRecord write_rank_file(const std::string& directory, const CheckpointInfo& info, size_t rank,
                           std::span<const SliceHeader> slices, const MakeSlice& make) {
  FileRecord record;
  record.path = fmt::format("rank_{:05d}.safetensors", rank);
  std::vector<size_t> order(slices.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return size_of(slices[a].dtype) > size_of(slices[b].dtype); });
  std::vector<TensorHeader> tensors;
  for (const size_t i : order) {
    const SliceHeader& s = slices[i];
    tensors.push_back({stored_name(s), s.dtype, with_rows(s.global_shape, s.row_end - s.row_begin)});
  }
  for (const SliceHeader& s : slices) {
    record.slices.push_back({s.name, s.dtype, s.global_shape, s.row_begin, s.row_end, stored_name(s)});
  }
  // Run, step and rank stand in the file, so that equal tensors of another step still hash differently.
  const WrittenFile written = write_safetensors(
      directory + "/" + record.path, tensors,
      [&](size_t i, const WriteBytes& write) { make(order[i], write); },
      {{"run_id", info.run_id}, {"step", std::to_string(info.step)}, {"rank", std::to_string(rank)}});
  record.bytes = written.bytes;
  record.hash = written.hash;
  return record;
}

// The caller's layout must hold every row once; finding out on loading would be too late.
void check_complete(const std::vector<FileRecord>& files) {
  std::map<std::string, std::vector<const SliceRecord*>> by_name;
  for (const FileRecord& file : files) {
    for (const SliceRecord& slice : file.slices) by_name[slice.name].push_back(&slice);
  }
  for (auto& [name, slices] : by_name) {
    std::sort(slices.begin(), slices.end(), [](const SliceRecord* a, const SliceRecord* b) {
      return std::pair(a->row_begin, a->row_end) < std::pair(b->row_begin, b->row_end);
    });
    int64_t covered = 0;
    for (const SliceRecord* slice : slices) {
      check(slice->global_shape == slices[0]->global_shape && slice->dtype == slices[0]->dtype,
            ErrorKind::checkpoint, "[checkpoint] owners of '{}' disagree: {} {} and {} {}", name,
            to_string(slices[0]->dtype), slices[0]->global_shape, to_string(slice->dtype),
            slice->global_shape);
      check(slice->row_begin == covered, ErrorKind::checkpoint, "[checkpoint] '{}': rows [{}, {}) have {}",
            name, std::min(covered, slice->row_begin), std::max(covered, slice->row_begin),
            slice->row_begin < covered ? "two owners" : "no owner");
      covered = slice->row_end;
    }
    check(covered == slices[0]->global_shape[0], ErrorKind::checkpoint,
          "[checkpoint] '{}': rows [{}, {}) have no owner", name, covered, slices[0]->global_shape[0]);
  }
}

void write_manifest(const std::string& directory, const CheckpointInfo& info, std::vector<FileRecord> files) {
  Manifest manifest;
  manifest.run_id = info.run_id;
  manifest.step = info.step;
  manifest.world_size = static_cast<int64_t>(files.size());
  manifest.created = utc_now();
  manifest.state = info.state;
  manifest.state["lineage"] = info.lineage == nullptr ? "" : info.lineage->id;
  manifest.config = info.config;
  manifest.files = std::move(files);
  OutputFile file(directory + "/" + kManifestName);
  file.write(as_bytes(to_text(manifest)));
  file.finish();
}

// One rename makes the checkpoint appear. Whatever has its name is another's, or was damaged, and is set
// aside. A rename that may not survive a power cut is taken back: an error means that nothing was committed.
void publish(const std::string& dir, const std::string& temporary, int64_t step) {
  const std::string final_path = dir + "/" + step_name(step);
  sync_directory(temporary);
  if (fs::exists(fs::symlink_status(final_path))) {
    warn("[checkpoint] {} stands in the way of a new one of this step and is kept as {}", final_path,
         set_aside(final_path));
  }
  rename_path(temporary, final_path);
  try {
    sync_directory(dir);
  } catch (const Error&) {
    rename_path(final_path, temporary);
    throw;
  }
}

// Is every byte of this checkpoint readable? What this job saved or read is not read again.
bool is_whole(const std::string& path, int64_t step, Lineage& lineage) {
  if (lineage.whole.contains(step)) return true;
  try {
    CheckpointReader(path).verify();
    lineage.whole.insert(step);
    return true;
  } catch (const Error& e) {
    warn("checkpoint left alone: {}", e.what());
    return false;
  }
}

// Removes the oldest of this lineage beyond `keep`; those of other runs, damaged ones and later steps (of a
// run that was set back) are neither removed nor counted.
void remove_old(const std::string& dir, int64_t step, int keep, Lineage& lineage) {
  int kept = 0;
  for (const std::string& path : list_checkpoints(dir)) {
    const int64_t found = step_of_name(fs::path(path).filename().string()).value();
    if (found > step || lineage_of(read_manifest(path)) != lineage.id) continue;
    if (!is_whole(path, found, lineage) || kept++ < keep) continue;
    // Renamed first: a kill in the middle leaves no half of a checkpoint under a name that readers look at.
    const std::string temporary = temporary_path(dir, found);
    rename_path(path, temporary);
    sync_directory(dir);
    remove_tree(temporary);
  }
}

}  // namespace

void remove_stale_temporaries(const std::string& dir) {
  if (!fs::is_directory(dir)) return;
  std::vector<std::string> stale;
  for (const auto& entry : fs::directory_iterator(dir)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(".step_") && name.ends_with(kTemporaryEnding))
      stale.push_back(entry.path().string());
  }
  for (const std::string& path : stale) remove_tree(path);
}

Shape with_rows(const Shape& shape, int64_t rows) {
  return Tensor(nullptr, DType::f32, shape).rows(0, rows).shape();
}

namespace {

// `write_files(folder)` is collective: the records of all files, in their order.
void save(const std::string& dir, const CheckpointInfo& info, Communicator& comm,
          const std::function<std::vector<std::string>(const std::string& folder)>& write_files) {
  const std::string temporary = temporary_path(dir, info.step);
  const bool leader = comm.rank() == 0;
  try {
    const auto prepare = [&] {
      make_directory(dir);
      remove_stale_temporaries(dir);
      make_directory(temporary);
      return std::string();
    };
    on_rank_0(comm, prepare, ErrorKind::checkpoint);
    const std::vector<std::string> records = write_files(temporary);
    const auto commit = [&] {
      std::vector<FileRecord> files;
      for (const std::string& record : records) files.push_back(file_record_from_text(record, dir));
      check_complete(files);
      write_manifest(temporary, info, std::move(files));
      publish(dir, temporary, info.step);
      return std::string();
    };
    on_rank_0(comm, commit, ErrorKind::checkpoint);
  } catch (const Error&) {
    std::error_code ignored;  // the first error is the one to report; the next start removes what is left
    if (leader) fs::remove_all(temporary, ignored);
    throw;
  }
  if (!leader) return;
  try {
    Lineage unnamed;
    Lineage& lineage = info.lineage == nullptr ? unnamed : *info.lineage;
    lineage.whole.insert(info.step);
    if (info.keep > 0) remove_old(dir, info.step, info.keep, lineage);
  } catch (const std::exception& e) {
    warn("[checkpoint] step {} is saved, but older checkpoints could not be removed: {}", info.step,
         e.what());
  }
}

}  // namespace

void save_checkpoint(const std::string& dir, const CheckpointInfo& info, std::span<const TensorSlice> slices,
                     Communicator& comm) {
  save(dir, info, comm, [&](const std::string& folder) {
    const auto write_mine = [&] {
      std::vector<SliceHeader> headers;
      for (const TensorSlice& s : slices) {
        check_slice(s);
        headers.push_back({s.name, s.data.dtype(), s.global_shape, s.row_begin, s.row_end});
      }
      const auto make = [&](size_t i, const WriteBytes& write) { write(bytes_of(slices[i].data)); };
      return to_text(write_rank_file(folder, info, static_cast<size_t>(comm.rank()), headers, make));
    };
    return agree(comm, write_mine, ErrorKind::checkpoint);
  });
}

void save_checkpoint(const std::string& dir, const CheckpointInfo& info,
                     std::span<const std::vector<SliceHeader>> files,
                     const std::function<void(const SliceHeader& slice, const WriteBytes& write)>& make,
                     Communicator& comm) {
  save(dir, info, comm, [&](const std::string& folder) {
    const auto write_file = [&](size_t f) {
      return to_text(write_rank_file(folder, info, f, files[f],
                                     [&](size_t i, const WriteBytes& write) { make(files[f][i], write); }));
    };
    return share(comm, files.size(), write_file, ErrorKind::checkpoint);
  });
}

}  // namespace ziggurat
