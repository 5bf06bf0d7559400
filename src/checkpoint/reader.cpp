#include <algorithm>
#include <cstring>
#include <filesystem>

#include "cure.h"
#include "manifest.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/comm/agreement.h>
#include <ziggurat/io/files.h>
#include <ziggurat/io/system_facts.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {

namespace fs = std::filesystem;

std::vector<std::string> step_folders(const std::string& dir, int64_t below) {
  std::vector<int64_t> steps;
  if (fs::is_directory(dir)) {
    for (const auto& entry : fs::directory_iterator(dir)) {
      const auto step = step_of_name(entry.path().filename().string());
      if (step && *step < below) steps.push_back(*step);
    }
  }
  std::sort(steps.rbegin(), steps.rend());
  std::vector<std::string> paths;
  for (const int64_t step : steps) paths.push_back(dir + "/" + step_name(step));
  return paths;
}

namespace {

std::string resolve(const std::string& path) {
  fs::path clean(path);
  if (!clean.has_filename()) clean = clean.parent_path();  // a trailing '/'
  constexpr const char* kExpected = "name the folder of a run, its checkpoints/ or one step_N of them";
  check(fs::is_directory(clean), ErrorKind::checkpoint, "[checkpoint] {} is not a directory: {}", path,
        kExpected);
  if (fs::exists(clean / kManifestName) || step_of_name(clean.filename().string())) return clean.string();
  const std::vector<std::string> folders = {clean.string(), (clean / "checkpoints").string()};
  for (const std::string& folder : folders) {
    if (const auto newest = latest_checkpoint(folder)) return *newest;
  }
  for (const std::string& folder : folders) {
    const std::vector<std::string> unusable = step_folders(folder);
    if (!unusable.empty()) read_manifest(unusable.front());  // throws why
  }
  fail(ErrorKind::checkpoint, "[checkpoint] {} holds no complete checkpoint: {}", path, kExpected);
}

// Fills `to` with the tensor's elements from `first` on.
void read_elements(const SafetensorsFile& file, const SafetensorsEntry& from, int64_t first,
                   const Tensor& to) {
  file.read(from, first * size_of(to.dtype()),
            {static_cast<std::byte*>(to.raw()), static_cast<size_t>(to.bytes())});
}

// The same of f32 for a bf16 tensor, rounded, or the other way.
template <class From, class To>
void read_converted(const SafetensorsFile& file, const SafetensorsEntry& from, int64_t first,
                    const Tensor& to) {
  constexpr int64_t kMost = 1 << 20;  // elements at a time
  std::vector<From> stored(static_cast<size_t>(std::min(kMost, to.numel())));
  To* const values = to.data<To>();
  for (int64_t at = 0; at < to.numel(); at += kMost) {
    const int64_t n = std::min(kMost, to.numel() - at);
    read_elements(file, from, first + at, Tensor(stored.data(), dtype_of<From>(), {n}));
    parallel_for_blocks(n, 1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) values[at + i] = To(stored[static_cast<size_t>(i)]);
    });
  }
}

}  // namespace

std::vector<std::string> list_checkpoints(const std::string& dir) {
  std::vector<std::string> intact;
  for (const std::string& path : step_folders(dir)) {
    try {
      read_manifest(path);
      intact.push_back(path);
    } catch (const Error&) {
      // Not a checkpoint: a save that was killed never gets this far, so it was damaged afterwards.
      // open_newest_valid tells the reasons.
    }
  }
  return intact;
}

std::optional<std::string> latest_checkpoint(const std::string& dir) {
  const std::vector<std::string> intact = list_checkpoints(dir);
  return intact.empty() ? std::nullopt : std::optional(intact.front());
}

CheckpointReader::CheckpointReader(const std::string& path)
    : path_(resolve(path)), manifest_(read_manifest(path_)), files_(manifest_.files.size()) {
  with_cure(kTakeAnother, [this] { index_slices(); });
}

// Pieces point into manifest_.files, whose elements stay where they are when the reader is moved.
void CheckpointReader::index_slices() {
  for (size_t f = 0; f < manifest_.files.size(); ++f) {
    for (const SliceRecord& slice : manifest_.files[f].slices) {
      auto [found, is_new] = tensors_.try_emplace(slice.name);
      Stored& stored = found->second;
      if (is_new) stored.info = {slice.dtype, slice.global_shape};
      check(stored.info.dtype == slice.dtype && stored.info.shape == slice.global_shape,
            ErrorKind::checkpoint, "[checkpoint] {}/{}: tensor '{}' is {} {} here and {} {} elsewhere", path_,
            manifest_.files[f].path, slice.name, to_string(slice.dtype), slice.global_shape,
            to_string(stored.info.dtype), stored.info.shape);
      if (slice.box.numel() > 0) stored.pieces.push_back({f, &slice});
    }
  }
  for (auto& [name, stored] : tensors_) {
    auto& pieces = stored.pieces;
    std::sort(pieces.begin(), pieces.end(),
              [](const Piece& a, const Piece& b) { return a.slice->box.begin[0] < b.slice->box.begin[0]; });
    for (size_t i = 0; i < pieces.size(); ++i) {
      const Box& box = pieces[i].slice->box;
      for (size_t j = i + 1; j < pieces.size() && pieces[j].slice->box.begin[0] < box.end(0); ++j) {
        const Box both = common(box, pieces[j].slice->box);
        check(both.numel() == 0, ErrorKind::checkpoint,
              "[checkpoint] {}: {} of tensor '{}' stands in both {} and {}", path_, both.str(), name,
              manifest_.files[pieces[i].file].path, manifest_.files[pieces[j].file].path);
      }
    }
  }
}

std::vector<std::string> CheckpointReader::names() const {
  std::vector<std::string> result;
  for (const auto& [name, stored] : tensors_) result.push_back(name);
  return result;
}

const CheckpointReader::TensorInfo& CheckpointReader::tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  check(found != tensors_.end(), ErrorKind::checkpoint,
        "[checkpoint] {} has no tensor '{}': `ziggurat checkpoint "
        "inspect` lists those that it has",
        path_, name);
  return found->second.info;
}

const SafetensorsFile& CheckpointReader::verified(size_t file) {
  auto& opened = files_[file];
  if (opened) return *opened;
  const FileRecord& record = manifest_.files[file];
  return opened.emplace(path_ + "/" + record.path, WrittenFile{record.bytes, record.hash});
}

void CheckpointReader::use_averages() {
  constexpr std::string_view kPrefix = "ema.w.";
  int64_t found = 0;
  for (const auto& [name, stored] : tensors_) {
    if (!name.starts_with(kPrefix)) continue;
    tensors_.at(name.substr(kPrefix.size())) = stored;
    ++found;
  }
  check(found > 0, ErrorKind::argument,
        "--average: {} holds no averages of weights; train with optimizer.average=0.999, or leave the option "
        "out",
        path_);
}

void CheckpointReader::verify(int part, int parts) {
  for (size_t f = static_cast<size_t>(part); f < files_.size(); f += static_cast<size_t>(parts)) verified(f);
}

void CheckpointReader::verify_together(Communicator& comm) {
  const auto me = static_cast<size_t>(comm.rank());
  std::string machine = first_line("/proc/sys/kernel/random/boot_id");
  if (machine.empty()) machine = fmt::format("rank {}", me);  // shares with nobody
  const std::vector<std::string> machines = comm.all_gather_text(machine);
  const auto here = [&](size_t rank) { return machines[rank] == machine; };
  int part = 0, parts = 0;
  for (size_t rank = 0; rank < machines.size(); ++rank) {
    if (rank == me) part = parts;
    if (here(rank)) ++parts;
  }
  const auto check_mine = [&] {
    verify(part, parts);
    nlohmann::json checked = nlohmann::json::array();
    for (size_t f = static_cast<size_t>(part); f < files_.size(); f += static_cast<size_t>(parts)) {
      const FileIdentity& file = files_[f]->identity();
      checked.push_back({f, file.device, file.inode, file.bytes});
    }
    return checked.dump();
  };
  const std::vector<std::string> all = agree(comm, check_mine, ErrorKind::checkpoint);
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (!here(rank)) continue;
    for (const auto& file : nlohmann::json::parse(all[rank])) {
      take_as_checked(file[0].get<size_t>(),
                      {file[1].get<uint64_t>(), file[2].get<uint64_t>(), file[3].get<int64_t>()});
    }
  }
}

// A file that is another one here, as in a container of its own, is checked by who reads it.
void CheckpointReader::take_as_checked(size_t file, const FileIdentity& by_another_rank) {
  auto& opened = files_[file];
  if (opened) return;
  opened.emplace(path_ + "/" + manifest_.files[file].path);
  if (opened->identity() != by_another_rank) opened.reset();
}

void CheckpointReader::read(const TensorSlice& into) {
  check_slice(into);
  const TensorInfo& info = tensor(into.name);
  const bool rounds = info.dtype == DType::f32 && into.data.dtype() == DType::bf16,
             widens = info.dtype == DType::bf16 && into.data.dtype() == DType::f32;
  check(info.shape == into.global_shape && (info.dtype == into.data.dtype() || rounds || widens),
        ErrorKind::checkpoint,
        "[checkpoint] {}: tensor '{}' is {} {}, the model expects {} {}; give it the config that it "
        "was trained with (`ziggurat checkpoint inspect`)",
        path_, into.name, to_string(info.dtype), info.shape, to_string(into.data.dtype()), into.global_shape);

  const Tensor flat = into.data.reshape({into.data.numel()});
  int64_t filled = 0;
  for (const Piece& piece : tensors_.at(into.name).pieces) {
    const SliceRecord& slice = *piece.slice;
    const int64_t here = common(into.box, slice.box).numel();
    if (here == 0) continue;
    const bool zeros = slice.stored_as.empty();
    const SafetensorsFile* file = zeros ? nullptr : &verified(piece.file);
    const SafetensorsEntry* stored = zeros ? nullptr : &stored_entry(*file, slice);
    for_each_run(into.box, slice.box, [&](int64_t in_data, int64_t in_file, int64_t n) {
      pieces_.write(flat.rows(in_data, in_data + n), [&](const Tensor& to, int64_t first) {
        if (zeros) {
          std::memset(to.raw(), 0, static_cast<size_t>(to.bytes()));
        } else if (rounds) {
          read_converted<float, bf16>(*file, *stored, in_file + first, to);
        } else if (widens) {
          read_converted<bf16, float>(*file, *stored, in_file + first, to);
        } else {
          read_elements(*file, *stored, in_file + first, to);
        }
      });
    });
    filled += here;
  }
  check(filled == into.box.numel(), ErrorKind::checkpoint,
        "[checkpoint] {}/{}: of {} of tensor '{}', {} of {} elements stand in no file; {}", path_,
        kManifestName, into.box.str(), into.name, into.box.numel() - filled, into.box.numel(), kTakeAnother);
}

const SafetensorsEntry& CheckpointReader::stored_entry(const SafetensorsFile& file,
                                                       const SliceRecord& slice) const {
  const SafetensorsEntry& entry = file.entry(slice.stored_as);
  check(entry.dtype == slice.dtype && entry.shape == slice.box.extent, ErrorKind::checkpoint,
        "[checkpoint] {}: '{}' is {} {}, the manifest says {} of {} {}; {}", file.path(), slice.stored_as,
        entry.code, entry.shape, slice.box.str(), to_string(slice.dtype), slice.global_shape, kTakeAnother);
  return entry;
}

std::string lineage_of(const Manifest& manifest) {
  const auto found = manifest.state.find("lineage");
  return found != manifest.state.end() && found->is_string() ? found->get<std::string>() : "";
}

std::vector<std::string> set_aside_later(const std::string& dir, int64_t step) {
  std::vector<std::string> aside;
  for (const std::string& path : step_folders(dir)) {
    if (*step_of_name(fs::path(path).filename().string()) <= step) break;
    aside.push_back(set_aside(path));
  }
  if (!aside.empty()) sync_folder(dir, ErrorKind::checkpoint);
  return aside;
}

NewestValid open_newest_valid(const std::string& dir, Communicator& comm, int64_t below) {
  NewestValid result;
  // Rank 0's list: all ranks must try the same directories in the same order.
  const std::string listed = on_rank_0(
      comm, [&] { return nlohmann::json(step_folders(dir, below)).dump(); }, ErrorKind::checkpoint);
  for (const std::string path : nlohmann::json::parse(listed)) {
    try {
      agree(
          comm,
          [&] {
            result.reader.emplace(path);
            return std::string();
          },
          ErrorKind::checkpoint);
      result.reader->verify_together(comm);
      return result;
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::checkpoint) throw;
      result.skipped.emplace_back(e.what());
    }
  }
  result.reader.reset();
  return result;
}

}  // namespace ziggurat
