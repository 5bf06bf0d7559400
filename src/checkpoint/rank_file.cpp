#include "rank_file.h"

#include <algorithm>

#include "manifest.h"

namespace ziggurat {

namespace {

// A whole tensor keeps its name, so that a checkpoint of one rank is a plain safetensors file.
std::string stored_name(const SliceHeader& s) {
  return s.box.extent == s.global_shape ? s.name : s.name + s.box.str();
}

}  // namespace

FileRecord write_rank_file(const std::string& folder, const CheckpointInfo& info, size_t rank,
                           std::span<const SliceHeader> slices, const MakeSlice& make) {
  FileRecord record;
  record.path = fmt::format("rank_{:05d}.safetensors", rank);
  std::vector<size_t> order;
  for (size_t i = 0; i < slices.size(); ++i) {
    if (!slices[i].zero) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return size_of(slices[a].dtype) > size_of(slices[b].dtype); });
  std::vector<TensorHeader> tensors;
  for (const size_t i : order) {
    const SliceHeader& s = slices[i];
    tensors.push_back({stored_name(s), s.dtype, s.box.extent});
  }
  for (const SliceHeader& s : slices) {
    record.slices.push_back({s.name, s.dtype, s.global_shape, s.box, s.zero ? "" : stored_name(s)});
  }
  // Run, step and rank stand in the file, so that equal tensors of another step still hash differently.
  const WrittenFile written = write_safetensors(
      folder + "/" + record.path, tensors, [&](size_t i, const WriteBytes& write) { make(order[i], write); },
      {{"run_id", info.run_id}, {"step", std::to_string(info.step)}, {"rank", std::to_string(rank)}});
  record.bytes = written.bytes;
  record.hash = written.hash;
  return record;
}

FileRecord write_rank_file(const std::string& folder, const CheckpointInfo& info, size_t rank,
                           std::span<const TensorSlice> slices, const std::function<void()>& go_on) {
  std::vector<SliceHeader> headers;
  for (const TensorSlice& s : slices) {
    check_slice(s);
    headers.push_back({s.name, s.data.dtype(), s.global_shape, s.box});
  }
  HostPieces pieces;
  const auto make = [&](size_t i, const WriteBytes& write) {
    pieces.read(slices[i].data, [&](const Tensor& piece, int64_t) {
      constexpr size_t kMost = size_t{32} << 20;  // between two questions whether to go on
      for (std::span<const std::byte> rest = bytes_of(piece); !rest.empty();) {
        if (go_on) go_on();
        const size_t n = std::min(kMost, rest.size());
        write(rest.first(n));
        rest = rest.subspan(n);
      }
    });
  };
  return write_rank_file(folder, info, rank, headers, make);
}

}  // namespace ziggurat
