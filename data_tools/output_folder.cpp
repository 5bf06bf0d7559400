#include "data_tools/output_folder.h"

#include <algorithm>

#include <fmt/format.h>

#include <ziggurat/core/error.h>
#include <ziggurat/data/folder.h>

namespace ziggurat {

using Path = std::filesystem::path;

bool OutputFolder::is_ours(const std::string& name, size_t split) const {
  const std::string start = options_.source + "-" + kSplitNames[split] + "-";
  return name.starts_with(start) && (name.ends_with(".h5") || name.ends_with(".h5.tmp"));
}

void OutputFolder::prepare() const {
  make_folder(options_.output);
  size_t wanted = 0;
  std::vector<Path> manifests, shards, temporaries;
  for (size_t split = 0; split < 3; ++split) {
    wanted += options_.split[split] > 0;
    if (const Path file = options_.output / manifest_name(options_.source, kSplitNames[split]);
        std::filesystem::exists(file)) {
      manifests.push_back(file);
    }
    for (const Path& path : entries_of(options_.output)) {
      if (!is_ours(path.filename().string(), split)) continue;
      (path.extension() == ".tmp" ? temporaries : shards).push_back(path);
    }
  }
  check(options_.overwrite || manifests.size() < std::max<size_t>(wanted, 1), ErrorKind::data,
        "{} already holds shards of source \"{}\"; choose another --output or --source, or say --overwrite",
        options_.output.string(), options_.source);
  // Manifests go first, so that none is ever left that names missing shards.
  if (options_.overwrite) {
    for (const Path& file : manifests) std::filesystem::remove(file);
    for (const Path& file : shards) std::filesystem::remove(file);
  }
  for (const Path& file : temporaries) std::filesystem::remove(file);
}

Path OutputFolder::temporary(size_t split, int64_t shard) const {
  return options_.output / fmt::format("{}-{}-{:05}.h5.tmp", options_.source, kSplitNames[split], shard);
}

Path OutputFolder::whole(size_t split, int64_t shard) const {
  return options_.output / fmt::format("{}-{}-{:05}.h5", options_.source, kSplitNames[split], shard);
}

std::optional<OutputFolder::Found> OutputFolder::find(size_t split, int64_t shard) const {
  std::vector<Path> candidates;
  if (std::filesystem::exists(whole(split, shard))) candidates.push_back(whole(split, shard));
  const std::string final_start = fmt::format("{}-{}-{:05}-of-", options_.source, kSplitNames[split], shard);
  for (const Path& path : entries_of(options_.output)) {
    if (path.filename().string().starts_with(final_start)) candidates.push_back(path);
  }
  for (const Path& file : candidates) {
    try {
      const ShardReader reader(file);
      reader.verify();
      return Found{file, reader.info()};
    } catch (const Error&) {  // damaged, e.g. by a power cut: it is made again
      std::filesystem::remove(file);
    }
  }
  return std::nullopt;
}

ShardManifest OutputFolder::finish(size_t split, int64_t shards) const {
  ShardManifest manifest;
  for (int64_t i = 0; i < shards; ++i) {
    const Path file = options_.output / shard_name(options_.source, kSplitNames[split], i, shards);
    if (std::filesystem::exists(whole(split, i))) finish_shard(whole(split, i), file, shards);
    const ShardInfo info = ShardReader(file).info();
    if (i == 0) manifest = new_manifest(options_.output, info);
    manifest.shards.push_back(describe_shard(file, info));
  }
  write_manifest(manifest);
  return manifest;
}

}  // namespace ziggurat
