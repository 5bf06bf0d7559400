#include <algorithm>
#include <filesystem>

#include "train/resume_checks.h"
#include <ziggurat/checkpoint/compare.h>
#include <ziggurat/train/convert.h>

namespace ziggurat::train {

namespace {

constexpr int64_t kPiece = int64_t{1} << 20;  // elements

}  // namespace

void convert_checkpoint(CheckpointReader& from, const std::string& folder, const Conversion& conversion,
                        const std::function<void(int64_t done, int64_t total)>& progress) {
  const Manifest& manifest = from.manifest();
  const std::string name = std::filesystem::path(from.path()).filename().string();
  check(!std::filesystem::exists(std::filesystem::path(folder) / name), ErrorKind::argument,
        "{}/{} is there already: choose another --output", folder, name);

  const std::vector<std::string> tensors = from.names();
  const std::set<std::string> names(tensors.begin(), tensors.end());
  int64_t total = 0, done = 0;
  std::vector<std::vector<SliceHeader>> files;
  for (const FileRecord& file : manifest.files) {
    std::vector<SliceHeader>& slices = files.emplace_back();
    for (const SliceRecord& slice : file.slices) {
      SliceHeader header{slice.name, slice.dtype, slice.global_shape, slice.box, slice.stored_as.empty()};
      if (is_moment_of(slice.name, names)) {
        if (conversion.moments) header.dtype = *conversion.moments;
        header.zero |= conversion.weights_only;
      }
      if (!header.zero) total += header.box.numel();
      slices.push_back(std::move(header));
    }
  }
  std::vector<std::byte> buffer;
  const auto make = [&](const SliceHeader& slice, const WriteBytes& write) {
    for_each_piece(slice.box, kPiece, [&](const Box& box) {
      buffer.resize(static_cast<size_t>(box.numel() * size_of(slice.dtype)));
      from.read({slice.name, slice.global_shape, box, Tensor(buffer.data(), slice.dtype, box.extent)});
      write(buffer);
      done += box.numel();
      if (progress) progress(done, total);
    });
  };
  Lineage lineage{lineage_of(manifest), {}};
  CheckpointInfo info;
  info.run_id = manifest.run_id;
  info.step = manifest.step;
  info.state = manifest.state;
  info.config = manifest.config;
  info.lineage = &lineage;
  const std::unique_ptr<Communicator> alone = make_self_communicator();
  save_checkpoint(folder, info, files, make, *alone);
}

}  // namespace ziggurat::train
