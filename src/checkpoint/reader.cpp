#include <algorithm>
#include <cstring>
#include <filesystem>

#include "manifest.h"
#include "posix_file.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/comm/agreement.h>

namespace ziggurat {

namespace fs = std::filesystem;

namespace {

// Step directories of steps below `below`, by name only, newest first.
std::vector<std::string> step_directories(const std::string& dir, int64_t below = INT64_MAX) {
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

std::string resolve(const std::string& path) {
  fs::path clean(path);
  if (!clean.has_filename()) clean = clean.parent_path();  // a trailing '/'
  check(fs::is_directory(clean), ErrorKind::checkpoint, "[checkpoint] {} is not a directory", path);
  if (fs::exists(clean / kManifestName) || step_of_name(clean.filename().string())) return clean.string();
  auto newest = latest_checkpoint(clean.string());
  if (!newest) newest = latest_checkpoint((clean / "checkpoints").string());
  check(newest.has_value(), ErrorKind::checkpoint, "[checkpoint] {} holds no complete checkpoint", path);
  return *newest;
}

}  // namespace

std::vector<std::string> list_checkpoints(const std::string& dir) {
  std::vector<std::string> intact;
  for (const std::string& path : step_directories(dir)) {
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
  index_slices();
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
      if (slice.row_begin < slice.row_end) stored.pieces.push_back({f, &slice});
    }
  }
  for (auto& [name, stored] : tensors_) {
    auto& pieces = stored.pieces;
    std::sort(pieces.begin(), pieces.end(),
              [](const Piece& a, const Piece& b) { return a.slice->row_begin < b.slice->row_begin; });
    for (size_t i = 1; i < pieces.size(); ++i) {
      check(pieces[i - 1].slice->row_end <= pieces[i].slice->row_begin, ErrorKind::checkpoint,
            "[checkpoint] {}: row {} of tensor '{}' stands in both {} and {}", path_,
            pieces[i].slice->row_begin, name, manifest_.files[pieces[i - 1].file].path,
            manifest_.files[pieces[i].file].path);
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
  check(found != tensors_.end(), ErrorKind::checkpoint, "[checkpoint] {} has no tensor '{}'", path_, name);
  return found->second.info;
}

const SafetensorsFile& CheckpointReader::verified(size_t file) {
  auto& opened = files_[file];
  if (opened) return *opened;
  const FileRecord& record = manifest_.files[file];
  return opened.emplace(path_ + "/" + record.path, WrittenFile{record.bytes, record.hash});
}

void CheckpointReader::verify(int part, int parts) {
  for (size_t f = static_cast<size_t>(part); f < files_.size(); f += static_cast<size_t>(parts)) verified(f);
}

void CheckpointReader::read(const TensorSlice& into) {
  check_slice(into);
  const TensorInfo& info = tensor(into.name);
  check(info.shape == into.global_shape && info.dtype == into.data.dtype(), ErrorKind::checkpoint,
        "[checkpoint] {}: tensor '{}' is {} {}, the model expects {} {}", path_, into.name,
        to_string(info.dtype), info.shape, to_string(into.data.dtype()), into.global_shape);

  const int64_t rows = into.row_end - into.row_begin;
  const int64_t row_bytes = rows == 0 ? 0 : into.data.bytes() / rows;
  int64_t next = into.row_begin;  // rows before it are filled
  for (const Piece& piece : tensors_.at(into.name).pieces) {
    const SliceRecord& slice = *piece.slice;
    const int64_t begin = std::max(next, slice.row_begin), end = std::min(into.row_end, slice.row_end);
    if (begin >= end) continue;
    if (begin > next) break;
    const SafetensorsFile& file = verified(piece.file);
    auto* to = static_cast<std::byte*>(into.data.raw()) + (begin - into.row_begin) * row_bytes;
    file.read(stored_entry(file, slice), (begin - slice.row_begin) * row_bytes,
              {to, static_cast<size_t>((end - begin) * row_bytes)});
    next = end;
  }
  check(next >= into.row_end, ErrorKind::checkpoint,
        "[checkpoint] {}/{}: row {} of tensor '{}' stands in no file", path_, kManifestName, next, into.name);
}

const SafetensorsEntry& CheckpointReader::stored_entry(const SafetensorsFile& file,
                                                       const SliceRecord& slice) const {
  const SafetensorsEntry& entry = file.entry(slice.stored_as);
  bool fits = entry.dtype == slice.dtype && entry.shape.rank() == slice.global_shape.rank() &&
              entry.shape[0] == slice.row_end - slice.row_begin;
  for (int i = 1; fits && i < entry.shape.rank(); ++i) fits = entry.shape[i] == slice.global_shape[i];
  check(fits, ErrorKind::checkpoint,
        "[checkpoint] {}: '{}' is {} {}, the manifest says rows [{}, {}) of {} {}", file.path(),
        slice.stored_as, entry.code, entry.shape, slice.row_begin, slice.row_end, to_string(slice.dtype),
        slice.global_shape);
  return entry;
}

std::string lineage_of(const Manifest& manifest) {
  const auto found = manifest.state.find("lineage");
  return found != manifest.state.end() && found->is_string() ? found->get<std::string>() : "";
}

std::vector<std::string> set_aside_later(const std::string& dir, int64_t step) {
  std::vector<std::string> aside;
  for (const std::string& path : step_directories(dir)) {
    if (*step_of_name(fs::path(path).filename().string()) <= step) break;
    aside.push_back(set_aside(path));
  }
  if (!aside.empty()) sync_directory(dir);
  return aside;
}

NewestValid open_newest_valid(const std::string& dir, Communicator& comm, int64_t below) {
  NewestValid result;
  // Rank 0's list: all ranks must try the same directories in the same order.
  const std::string listed = on_rank_0(
      comm, [&] { return nlohmann::json(step_directories(dir, below)).dump(); }, ErrorKind::checkpoint);
  for (const std::string path : nlohmann::json::parse(listed)) {
    try {
      agree(
          comm,
          [&] {
            result.reader.emplace(path);
            result.reader->verify(comm.rank(), comm.size());
            return std::string();
          },
          ErrorKind::checkpoint);
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
