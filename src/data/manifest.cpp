#include <nlohmann/json.hpp>

#include <ziggurat/core/error.h>
#include <ziggurat/data/folder.h>
#include <ziggurat/data/manifest.h>
#include <ziggurat/data/shard_format.h>
#include <ziggurat/io/content_hash.h>
#include <ziggurat/io/files.h>
#include <ziggurat/io/untrusted_json.h>

namespace ziggurat {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using Path = std::filesystem::path;

// A manifest speaks of files beside it only.
void check_names(const ShardManifest& manifest, const std::string& name) {
  const auto check_name = [&](const char* key, const std::string& value) {
    check(is_plain_name(value), ErrorKind::data,
          "{}: \"{}\" is \"{}\", expected a plain name without '/', control characters or a leading dot: "
          "shards lie "
          "beside their manifest; correct it or tokenize again",
          name, key, value);
  };
  check_name("source", manifest.source);
  check_name("split", manifest.split);
  for (const ShardManifest::Shard& shard : manifest.shards) check_name("file", shard.file);
}

ShardManifest parse_manifest(const Path& file) {
  const std::string name = file.string();
  try {
    const json root = parse_untrusted_json(read_file(file));
    check(root.is_object() && root.value("format", std::string()) == kShardManifestFormat, ErrorKind::data,
          "{} is no manifest of shards (\"format\": \"{}\"); make one with `ziggurat data tokenize`", name,
          kShardManifestFormat);
    const int64_t version = root.at("version").get<int64_t>();
    check(version == kShardManifestVersion, ErrorKind::data,
          "{}: version {} of a manifest of shards, this program reads version {}; tokenize again, or use a "
          "newer "
          "ziggurat",
          name, version, kShardManifestVersion);
    ShardManifest manifest;
    manifest.folder = file.parent_path();
    manifest.source = root.at("source").get<std::string>();
    manifest.split = root.at("split").get<std::string>();
    manifest.tokenizer = root.at("tokenizer").get<std::string>();
    manifest.tokenizer_sha256 = root.at("tokenizer_sha256").get<std::string>();
    manifest.vocab_size = root.at("vocab_size").get<int64_t>();
    manifest.eod_id = root.at("eod_id").get<int64_t>();
    for (const json& shard : root.at("shards")) {
      manifest.shards.push_back({shard.at("file").get<std::string>(), shard.at("n_tokens").get<int64_t>(),
                                 shard.at("n_docs").get<int64_t>(), shard.at("bytes").get<int64_t>(),
                                 shard.at("xxh3_128").get<std::string>()});
    }
    check_names(manifest, name);
    return manifest;
  } catch (const JsonFault& fault) {
    fail(ErrorKind::data, "{} is no valid JSON: {}; copy it again, or tokenize again", name, fault.what());
  } catch (const json::exception& e) {
    fail(ErrorKind::data, "{} is a broken manifest of shards: {}; tokenize again", name, e.what());
  }
}

int64_t bytes_of(const Path& file) {
  std::error_code reason;
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(file, reason));
  check(!reason, ErrorKind::data, "cannot read {}: {}", file.string(), reason_of(reason.value()));
  return bytes;
}

ShardManifest manifest_of_one(const Path& shard) {
  const ShardInfo info = ShardReader(shard).info();
  ShardManifest manifest = new_manifest(shard.parent_path(), info);
  manifest.shards.push_back({shard.filename().string(), info.n_tokens, info.n_docs, bytes_of(shard), ""});
  return manifest;
}

Path find_in_folder(const Path& folder, const std::string& split) {
  std::vector<Path> found;
  for (const Path& path : entries_of(folder)) {
    if (path.filename().string().ends_with("-" + split + ".json")) found.push_back(path);
  }
  check(
      !found.empty(), ErrorKind::data,
      "{}: expected a manifest *-{}.json in this folder, found none; make shards of text with `ziggurat data "
      "tokenize`, or name the folder that it wrote to",
      folder.string(), split);
  check(found.size() == 1, ErrorKind::data,
        "{}: expected one manifest *-{}.json in this folder, found {}; name one of them, {}, or mix them by "
        "weight with data.blend",
        folder.string(), split, found.size(), std::min(found.front(), found.back()).string());
  return found[0];
}

}  // namespace

int64_t ShardManifest::n_tokens() const {
  int64_t sum = 0;
  for (const Shard& shard : shards) sum += shard.n_tokens;
  return sum;
}

int64_t ShardManifest::n_docs() const {
  int64_t sum = 0;
  for (const Shard& shard : shards) sum += shard.n_docs;
  return sum;
}

std::string manifest_name(const std::string& source, const std::string& split) {
  return source + "-" + split + ".json";
}

std::string shard_name(const std::string& source, const std::string& split, int64_t shard, int64_t shards) {
  return fmt::format("{}-{}-{:05}-of-{:05}.h5", source, split, shard, shards);
}

ShardManifest new_manifest(const Path& folder, const ShardInfo& common) {
  ShardManifest manifest;
  manifest.folder = folder;
  manifest.source = common.source, manifest.split = common.split;
  manifest.tokenizer = common.tokenizer, manifest.tokenizer_sha256 = common.tokenizer_sha256;
  manifest.vocab_size = common.vocab_size, manifest.eod_id = common.eod_id;
  return manifest;
}

ShardManifest::Shard describe_shard(const Path& file, const ShardInfo& info) {
  return {file.filename().string(), info.n_tokens, info.n_docs, bytes_of(file), hex_hash_of_file(file)};
}

void write_manifest(const ShardManifest& manifest) {
  ordered_json shards = ordered_json::array();
  for (const ShardManifest::Shard& shard : manifest.shards) {
    shards.push_back({{"file", shard.file},
                      {"n_tokens", shard.n_tokens},
                      {"n_docs", shard.n_docs},
                      {"bytes", shard.bytes},
                      {"xxh3_128", shard.xxh3}});
  }
  const ordered_json root = {{"format", kShardManifestFormat},
                             {"version", kShardManifestVersion},
                             {"source", manifest.source},
                             {"split", manifest.split},
                             {"tokenizer", manifest.tokenizer},
                             {"tokenizer_sha256", manifest.tokenizer_sha256},
                             {"vocab_size", manifest.vocab_size},
                             {"eod_id", manifest.eod_id},
                             {"n_tokens", manifest.n_tokens()},
                             {"n_docs", manifest.n_docs()},
                             {"shards", shards}};
  replace_file(manifest.folder / manifest_name(manifest.source, manifest.split), root.dump(1) + "\n");
}

ShardManifest read_manifest(const Path& path, const std::string& split) {
  std::error_code reason;
  const auto status = std::filesystem::status(path, reason);
  check(status.type() != std::filesystem::file_type::not_found, ErrorKind::data,
        "{} does not exist: expected a manifest of shards, a folder with one, or an .h5 file, as `ziggurat "
        "data tokenize` makes them",
        path.string());
  check(!reason, ErrorKind::data,
        "cannot read {}: {}; name a manifest (<source>-train.json), a folder with one, or an .h5 file",
        path.string(), reason_of(reason.value()));
  if (std::filesystem::is_directory(status)) return parse_manifest(find_in_folder(path, split));
  return path.extension() == ".h5" ? manifest_of_one(path) : parse_manifest(path);
}

void verify_files(const ShardManifest& manifest) {
  for (const ShardManifest::Shard& shard : manifest.shards) {
    const Path file = manifest.folder / shard.file;
    std::error_code reason;
    check(std::filesystem::exists(file, reason) || reason, ErrorKind::data,
          "shard {} is missing; copy or tokenize it again", file.string());
    const int64_t bytes = bytes_of(file);
    check(bytes == shard.bytes, ErrorKind::data,
          "shard {} has {} bytes, its manifest says {}; copy or tokenize it again", file.string(), bytes,
          shard.bytes);
    check(shard.xxh3.empty() || hex_hash_of_file(file) == shard.xxh3, ErrorKind::data,
          "shard {} has changed since its manifest was written (XXH3 differs); copy or tokenize it again",
          file.string());
  }
}

}  // namespace ziggurat
