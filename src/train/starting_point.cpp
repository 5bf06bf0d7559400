#include <algorithm>
#include <map>

#include "train/resume_checks.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/comm/agreement.h>
#include <ziggurat/config/config.h>
#include <ziggurat/train/starting_point.h>

namespace ziggurat::train {

namespace {

using Files = std::vector<std::vector<SliceHeader>>;

DType dtype_of(const StartingPoint& start) { return accum_dtype(start.model.options().compute); }

int64_t bytes_of(const SliceHeader& slice) {
  return slice.zero ? 0 : slice.box.numel() * size_of(slice.dtype);
}
int64_t bytes_of(const std::vector<SliceHeader>& file) {
  int64_t bytes = 0;
  for (const SliceHeader& slice : file) bytes += bytes_of(slice);
  return bytes;
}

// In order, as few as can be; only what is larger than a file is cut up, between rows. AdamW's moments are
// zero, for who expects them.
Files plan_files(const StartingPoint& start) {
  Files files;
  int64_t room = 0;
  for (const nn::ParamEntry& entry : start.model.entries()) {
    const Shape& shape = entry.spec.global_shape;
    const std::string& parameter = entry.spec.name;
    for (const std::string& name :
         {parameter, saved_name("adam.m", parameter), saved_name("adam.v", parameter)}) {
      SliceHeader slice{name, dtype_of(start), shape, rows_of(shape, 0, shape[0]), name != parameter};
      const int64_t bytes = bytes_of(slice), row = bytes / shape[0];
      const int64_t rows =
          bytes <= start.file_bytes ? shape[0] : std::max<int64_t>(1, start.file_bytes / row);
      for (int64_t begin = 0; begin < shape[0]; begin += rows) {
        slice.box = rows_of(shape, begin, std::min(shape[0], begin + rows));
        if (files.empty() || bytes_of(slice) > room) {
          files.emplace_back();
          room = start.file_bytes;
        }
        files.back().push_back(slice);
        room -= bytes_of(slice);
      }
    }
  }
  return files;
}

// Makes slices a piece at a time.
class SliceMaker {
 public:
  SliceMaker(const StartingPoint& start, SharedProgress& progress) : start_(start), progress_(progress) {
    for (const nn::ParamEntry& entry : start.model.entries()) entries_[entry.spec.name] = &entry;
  }

  void operator()(const SliceHeader& slice, const WriteBytes& write) {
    const nn::ParamEntry& entry = *entries_.at(slice.name);
    const int64_t element = size_of(slice.dtype), n = bytes_of(slice) / element;
    const int64_t first = slice.box.begin[0] * (slice.global_shape.numel() / slice.global_shape[0]);
    buffer_.resize(static_cast<size_t>(std::min(n, kPiece) * element));
    for (int64_t at = 0; at < n; at += kPiece) {
      const Tensor piece(buffer_.data(), slice.dtype, {std::min(kPiece, n - at)});
      start_.values(entry, first + at, piece);
      write(ziggurat::bytes_of(piece));
      progress_.add(piece.bytes());
    }
  }

 private:
  static constexpr int64_t kPiece = int64_t{1} << 21;  // elements

  const StartingPoint& start_;
  SharedProgress& progress_;
  std::map<std::string, const nn::ParamEntry*> entries_;
  std::vector<std::byte> buffer_;
};

}  // namespace

int64_t bytes_of(const StartingPoint& start) {
  int64_t bytes = 0;
  for (const std::vector<SliceHeader>& file : plan_files(start)) bytes += bytes_of(file);
  return bytes;
}

void save_starting_point(const StartingPoint& start, const std::string& folder, Communicator& comm,
                         const std::function<void(int64_t done, int64_t total)>& progress) {
  const Files files = plan_files(start);
  std::vector<int64_t> bytes;
  for (const std::vector<SliceHeader>& file : files) bytes.push_back(bytes_of(file));
  SharedProgress shared(comm, bytes, progress);
  CheckpointInfo info;
  info.run_id = start.config.name;
  info.config = dump_config(start.config);
  info.state = {{"step", 0}, {"consumed_samples", 0}};
  if (!start.tokenizer_fingerprint.empty()) info.state["tokenizer"] = start.tokenizer_fingerprint;
  save_checkpoint(folder, info, files, SliceMaker(start, shared), comm);
}

}  // namespace ziggurat::train
