#include "commit.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "cure.h"
#include "manifest.h"
#include <ziggurat/core/log.h>
#include <ziggurat/core/utc.h>
#include <ziggurat/io/files.h>
#include <ziggurat/io/output_file.h>

namespace ziggurat {

namespace fs = std::filesystem;

namespace {

// The caller's layout must hold every element once; finding out on loading would be too late.
void check_complete(const std::vector<FileRecord>& files) {
  std::map<std::string, std::vector<const SliceRecord*>> by_name;
  for (const FileRecord& file : files) {
    for (const SliceRecord& slice : file.slices) by_name[slice.name].push_back(&slice);
  }
  for (auto& [name, slices] : by_name) {
    std::sort(slices.begin(), slices.end(),
              [](const SliceRecord* a, const SliceRecord* b) { return a->box.begin[0] < b->box.begin[0]; });
    int64_t covered = 0;
    for (size_t i = 0; i < slices.size(); ++i) {
      const SliceRecord* slice = slices[i];
      check(slice->global_shape == slices[0]->global_shape && slice->dtype == slices[0]->dtype,
            ErrorKind::checkpoint, "[checkpoint] owners of '{}' disagree: {} {} and {} {}", name,
            to_string(slices[0]->dtype), slices[0]->global_shape, to_string(slice->dtype),
            slice->global_shape);
      for (size_t j = i + 1; j < slices.size() && slices[j]->box.begin[0] < slice->box.end(0); ++j) {
        const Box both = common(slice->box, slices[j]->box);
        check(both.numel() == 0, ErrorKind::checkpoint, "[checkpoint] '{}': {} has two owners", name,
              both.str());
      }
      covered += slice->box.numel();
    }
    const int64_t all = slices[0]->global_shape.numel();
    check(covered == all, ErrorKind::checkpoint, "[checkpoint] '{}': {} of {} elements have no owner", name,
          all - covered, all);
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
  OutputFile file(directory + "/" + kManifestName, ErrorKind::checkpoint);
  file.write(to_text(manifest));
  file.finish();
}

// One rename makes the checkpoint appear. Whatever has its name is another's, or was damaged, and is set
// aside. A rename that may not survive a power cut is taken back: an error means that nothing was committed.
void publish(const std::string& dir, const std::string& temporary, int64_t step) {
  const std::string final_path = dir + "/" + step_name(step);
  sync_folder(temporary, ErrorKind::checkpoint);
  if (fs::exists(fs::symlink_status(final_path))) {
    warn("[checkpoint] {} stands in the way of a new one of this step and is kept as {}", final_path,
         set_aside(final_path));
  }
  rename_path(temporary, final_path, ErrorKind::checkpoint);
  try {
    sync_folder(dir, ErrorKind::checkpoint);
  } catch (const Error&) {
    rename_path(final_path, temporary, ErrorKind::checkpoint);
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

// Removes the oldest of this lineage beyond `keep`, but for every keep_every-th step; those of other runs,
// damaged ones and later steps (of a run that was set back) are neither removed nor counted.
void remove_old(const std::string& dir, const CheckpointInfo& info, Lineage& lineage) {
  int kept = 0;
  for (const std::string& path : list_checkpoints(dir)) {
    const int64_t found = step_of_name(fs::path(path).filename().string()).value();
    if (found > info.step || lineage_of(read_manifest(path)) != lineage.id) continue;
    if (!is_whole(path, found, lineage) || kept++ < info.keep) continue;
    if (info.keep_every > 0 && found % info.keep_every == 0) continue;
    // Renamed first: a kill in the middle leaves no half of a checkpoint under a name that readers look at.
    const std::string temporary = temporary_path(dir, found);
    rename_durably(path, temporary, ErrorKind::checkpoint);
    remove_folder(temporary, ErrorKind::checkpoint);
    lineage.whole.erase(found);
  }
}

}  // namespace

void commit_checkpoint(const std::string& dir, const CheckpointInfo& info, std::vector<FileRecord> files) {
  const std::string temporary = temporary_path(dir, info.step);
  with_cure("a mistake of this program: please report it", [&] { check_complete(files); });
  try {
    if (!info.synced_first.empty()) sync_file(info.synced_first);
  } catch (const Error&) {
    // It lies on a disk that fails, and the checkpoint does not, or not yet.
  }
  write_manifest(temporary, info, std::move(files));
  publish(dir, temporary, info.step);
}

void remove_superfluous(const std::string& dir, const CheckpointInfo& info) noexcept {
  try {
    Lineage unnamed;
    Lineage& lineage = info.lineage == nullptr ? unnamed : *info.lineage;
    lineage.whole.insert(info.step);
    if (info.keep > 0) remove_old(dir, info, lineage);
  } catch (const std::exception& e) {
    warn("[checkpoint] step {} is saved, but older checkpoints could not be removed: {}", info.step,
         e.what());
  }
}

// The error that led here is the one to report; the next start removes what is left.
void discard_checkpoint(const std::string& dir, int64_t step) noexcept {
  std::error_code ignored;
  fs::remove_all(temporary_path(dir, step), ignored);
}

}  // namespace ziggurat
