#include <filesystem>

#include "commit.h"
#include "manifest.h"
#include "rank_file.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/comm/agreement.h>
#include <ziggurat/io/files.h>

namespace ziggurat {

namespace fs = std::filesystem;

void remove_stale_temporaries(const std::string& dir) {
  if (!fs::is_directory(dir)) return;
  std::vector<std::string> stale;
  for (const auto& entry : fs::directory_iterator(dir)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(".step_") && name.ends_with(kTemporaryEnding))
      stale.push_back(entry.path().string());
  }
  for (const std::string& path : stale) remove_folder(path, ErrorKind::checkpoint);
}

namespace {

// `write_files(folder)` is collective: the records of all files, in their order.
void save(const std::string& dir, const CheckpointInfo& info, Communicator& comm,
          const std::function<std::vector<std::string>(const std::string& folder)>& write_files) {
  const std::string temporary = temporary_path(dir, info.step);
  const bool leader = comm.rank() == 0;
  try {
    const auto prepare = [&] {
      make_folder(dir, ErrorKind::checkpoint);
      remove_stale_temporaries(dir);
      make_folder(temporary, ErrorKind::checkpoint);
      return std::string();
    };
    on_rank_0(comm, prepare, ErrorKind::checkpoint);
    const std::vector<std::string> records = write_files(temporary);
    const auto commit = [&] {
      std::vector<FileRecord> files;
      for (const std::string& record : records) files.push_back(file_record_from_text(record, dir));
      commit_checkpoint(dir, info, std::move(files));
      return std::string();
    };
    on_rank_0(comm, commit, ErrorKind::checkpoint);
  } catch (const Error&) {
    if (leader) discard_checkpoint(dir, info.step);
    throw;
  }
  if (leader) remove_superfluous(dir, info);
}

}  // namespace

void save_checkpoint(const std::string& dir, const CheckpointInfo& info, std::span<const TensorSlice> slices,
                     Communicator& comm) {
  save(dir, info, comm, [&](const std::string& folder) {
    const auto write_mine = [&] {
      return to_text(write_rank_file(folder, info, static_cast<size_t>(comm.rank()), slices));
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
