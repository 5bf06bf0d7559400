#include "data_tools/output_folder.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/data/folder.h>
#include <ziggurat/io/content_hash.h>
#include <ziggurat/io/files.h>
#include <ziggurat/io/output_file.h>

namespace ziggurat {
namespace {

using Path = std::filesystem::path;
using nlohmann::ordered_json;
constexpr const char* kJob = "job.json";

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool take(std::string_view& text, std::string_view start) {
  if (!text.starts_with(start)) return false;
  text.remove_prefix(start.size());
  return true;
}

bool take_number(std::string_view& text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  text.remove_prefix(digits);
  return digits > 0;
}

// <source>-<split>-<i>.h5, <source>-<split>-<i>-of-<n>.h5 or <source>-<split>-<i>-of-<n>-<k>.h5
bool is_shard_of(std::string_view name, const std::string& source, const std::string& split) {
  if (!take(name, source + "-" + split + "-") || !take_number(name)) return false;
  if (take(name, "-of-") && !take_number(name)) return false;
  if (take(name, "-") && !take_number(name)) return false;
  return name == ".h5" || name == ".h5.tmp";
}

// The lines of `a` that `b` has not, on one line.
std::string lines_missing(const std::string& a, const std::string& b) {
  std::string missing;
  for (size_t begin = 0; begin < a.size();) {
    const size_t end = std::min(a.find('\n', begin), a.size());
    const std::string line = a.substr(begin, end - begin);
    if (("\n" + b + "\n").find("\n" + line + "\n") == std::string::npos) {
      missing += (missing.empty() ? "" : ", ") + line;
    }
    begin = end + 1;
  }
  return missing;
}

JobIdentity parse_job(const std::string& text) {
  const ordered_json job = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!job.is_object() || !job.contains("options") || !job.contains("inputs")) return {};
  return {job["options"].get<std::string>(), job["inputs"].get<std::string>()};
}

bool same_job(const JobIdentity& a, const JobIdentity& b) {
  return a.options == b.options && a.inputs == b.inputs && !a.inputs.empty();
}

// All manifests of a folder that can be read; what cannot names nothing.
std::vector<std::pair<std::string, ShardManifest>> manifests_in(const Path& folder) {
  constexpr uintmax_t kLargest = uintmax_t{64} << 20;  // what is larger is text
  std::vector<std::pair<std::string, ShardManifest>> found;
  for (const Path& path : entries_of(folder)) {
    std::error_code reason;
    if (path.extension() != ".json" || path.filename() == "tokenizer.json") continue;
    if (std::filesystem::file_size(path, reason) > kLargest || reason) continue;
    try {
      found.emplace_back(path.filename().string(), read_manifest(path, ""));
    } catch (const Error&) {
    }
  }
  return found;
}

}  // namespace

void make_output_folder(const Path& folder) {
  std::error_code reason;
  std::filesystem::create_directories(folder, reason);
  if (reason == std::errc::not_a_directory || reason == std::errc::file_exists) reason.clear();  // told below
  check(!reason, ErrorKind::argument, "--output {}: cannot make the folder: {}", folder.string(),
        reason_of(reason.value()));
  check(std::filesystem::is_directory(folder, reason), ErrorKind::argument,
        "--output {}: expected a folder, but it or a part of its path is a file; choose another",
        folder.string());
  const int refusal = ::access(folder.c_str(), W_OK | X_OK) == 0 ? 0 : errno;
  check(refusal == 0, ErrorKind::argument, "--output {}: cannot write into the folder: {}", folder.string(),
        reason_of(refusal));
}

void check_source_name(const std::string& source, const char* option) {
  constexpr size_t kLongest = 200;  // with split, number, suffix and .tmp it must stay below 256 bytes
  check(
      is_plain_name(source) && source.size() <= kLongest, ErrorKind::argument,
      "{}: expected a name for files in --output (no '/', control character or leading dot, 1 to {} bytes), "
      "got \"{}\"",
      option, kLongest, source);
}

std::unique_ptr<Tokenizer> tokenizer_in(const Path& folder) {
  try {
    return load_tokenizer(folder);
  } catch (const Error&) {
    return nullptr;
  }
}

std::string identity_of(const std::vector<Path>& files) {
  std::string all;
  for (const Path& file : files) {
    std::error_code reason;
    const auto bytes = std::filesystem::file_size(file, reason);
    if (reason) return "";
    const auto time = std::filesystem::last_write_time(file, reason).time_since_epoch().count();
    if (reason) return "";
    all += fmt::format("{}\n{} {}\n", file.string(), bytes, time);
  }
  Hasher hasher;
  hasher.update(as_bytes(all));
  return fmt::format("{} files {}", files.size(), hasher.hex());
}

OutputFolder::OutputFolder(OutputSet set) : set_(std::move(set)), exchange_(set_.folder, set_.source) {
  check_source_name(set_.source, "--source");
  for (const std::string& split : set_.splits) check_source_name(split, "--split");
}

std::vector<std::string> OutputFolder::finished_files() const {
  std::vector<std::string> names;
  for (const Path& path : entries_of(exchange_.folder())) {
    const std::string name = path.filename().string();
    for (const std::string& split : set_.splits) {
      if (name == manifest_name(set_.source, split) || is_shard_of(name, set_.source, split)) {
        names.push_back(name);
      }
    }
  }
  return names;
}

bool OutputFolder::has_whole_shards() const {
  const std::vector<Path> entries = entries_of(exchange_.staging());
  return std::any_of(entries.begin(), entries.end(),
                     [](const Path& path) { return path.extension() == ".h5"; });
}

void OutputFolder::check_tokenizer(const std::string& fingerprint) const {
  if (fingerprint.empty()) return;
  const std::vector<std::string> replaced = finished_files();
  for (const auto& [name, manifest] : manifests_in(exchange_.folder())) {
    check(contains(replaced, name) || manifest.tokenizer_sha256.empty() ||
              manifest.tokenizer_sha256 == fingerprint,
          ErrorKind::data,
          "{} lists shards made with another tokenizer, which would lose theirs: a folder has one tokenizer; "
          "choose another --output",
          (exchange_.folder() / name).string());
  }
  if (set_.overwrite) return;
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    if (!is_there(exchange_.folder() / name)) continue;
    const auto there = tokenizer_in(exchange_.folder());
    check(there && there->fingerprint() == fingerprint, ErrorKind::data,
          "{} is another tokenizer; choose another --output, or say --overwrite to replace it",
          (exchange_.folder() / name).string());
  }
}

FolderLock lock_to_write(const Path& folder) { return FolderLock(folder.string(), ".write.lock"); }

PreparedFolder OutputFolder::prepare(const JobIdentity& job, const std::string& tokenizer_fingerprint,
                                     bool resumes) {
  make_output_folder(exchange_.folder());
  PreparedFolder prepared{lock_to_write(exchange_.folder())};
  std::string finished;
  if (exchange_.finish_interrupted(kJob, &finished)) {
    info("finished an interrupted exchange of shards in {}", exchange_.folder().string());
    prepared.done = same_job(parse_job(finished), job);
    if (prepared.done) return prepared;
  }
  check(set_.overwrite || finished_files().empty(), ErrorKind::data,
        "{} already holds shards of source \"{}\"; choose another --output or --source, or say --overwrite",
        exchange_.folder().string(), set_.source);
  check_tokenizer(tokenizer_fingerprint);

  const Path& staging = exchange_.staging();
  if (is_there(staging)) {
    const JobIdentity other = is_there(staging / kJob) ? parse_job(read_file(staging / kJob)) : JobIdentity();
    check(set_.overwrite || other.options == job.options || !has_whole_shards(), ErrorKind::data,
          "{} holds shards of an interrupted run with other text, tokenizer or options (then {}; now {}), so "
          "that "
          "run cannot be resumed; say --overwrite to start over",
          staging.string(), lines_missing(other.options, job.options),
          lines_missing(job.options, other.options));
    const bool ours = set_.overwrite ? same_job(other, job) : other.options == job.options;
    if (!resumes || !ours) exchange_.discard();
  }
  make_folder(staging);
  for (const Path& path : entries_of(staging)) {
    const std::string name = path.filename().string();
    if (path.extension() == ".tmp") remove_file(path);
    // finish() was killed before anything was decided.
    for (const std::string& split : set_.splits) {
      const size_t of = name.find("-of-", set_.source.size() + split.size());
      if (path.extension() == ".h5" && is_shard_of(name, set_.source, split) && of != std::string::npos) {
        rename_path(path, staging / (name.substr(0, of) + ".h5"));
      }
    }
  }
  const ordered_json identity = {{"options", job.options}, {"inputs", job.inputs}};
  replace_file(staging / kJob, identity.dump(1) + "\n");
  return prepared;
}

std::string OutputFolder::unfinished_name(size_t split, int64_t shard) const {
  return fmt::format("{}-{}-{:05}.h5", set_.source, set_.splits[split], shard);
}

Path OutputFolder::temporary(size_t split, int64_t shard) const {
  return exchange_.staging() / (unfinished_name(split, shard) + ".tmp");
}

Path OutputFolder::whole(size_t split, int64_t shard) const {
  return exchange_.staging() / unfinished_name(split, shard);
}

std::optional<OutputFolder::Found> OutputFolder::find(size_t split, int64_t shard) const {
  const Path file = whole(split, shard);
  if (!is_there(file)) return std::nullopt;
  try {
    const ShardReader reader(file);
    reader.verify();
    return Found{file, reader.info()};
  } catch (const Error&) {  // damaged, e.g. by a power cut: it is made again
    remove_file(file);
    return std::nullopt;
  }
}

ShardManifest OutputFolder::describe(size_t split, int64_t shards, const std::string& suffix) const {
  ShardManifest manifest;
  for (int64_t i = 0; i < shards; ++i) {
    std::string name = shard_name(set_.source, set_.splits[split], i, shards);
    name.insert(name.size() - std::strlen(".h5"), suffix);
    const Path file = exchange_.staging() / name;
    finish_shard(whole(split, i), file, shards);
    const ShardInfo info = ShardReader(file).info();
    if (i == 0) manifest = new_manifest(exchange_.staging(), info);
    manifest.shards.push_back(describe_shard(file, info));
  }
  write_manifest(manifest);
  manifest.folder = exchange_.folder();
  return manifest;
}

std::vector<ShardManifest> OutputFolder::finish(const std::vector<int64_t>& shards,
                                                const Tokenizer* tokenizer) const {
  const std::vector<std::string> old = finished_files();
  const auto taken = [&](const std::string& suffix) {
    return std::any_of(old.begin(), old.end(), [&](const std::string& name) {
      const size_t of = name.rfind("-of-");
      if (of == std::string::npos || !name.ends_with(".h5")) return false;
      const size_t dash = name.find('-', of + 4);
      return (dash == std::string::npos ? "" : name.substr(dash, name.size() - 3 - dash)) == suffix;
    });
  };
  std::string suffix;
  for (int n = 2; taken(suffix); ++n) suffix = fmt::format("-{}", n);

  std::vector<ShardManifest> manifests;
  FileExchange::Step put_shards, put_manifests, remove_old;
  for (size_t split = 0; split < set_.splits.size(); ++split) {
    const std::string name = manifest_name(set_.source, set_.splits[split]);
    if (shards[split] == 0) {
      if (contains(old, name)) put_manifests.remove.push_back(name);
      continue;
    }
    manifests.push_back(describe(split, shards[split], suffix));
    for (const ShardManifest::Shard& shard : manifests.back().shards) put_shards.put.push_back(shard.file);
    put_manifests.put.push_back(name);
  }
  const auto there = tokenizer ? tokenizer_in(exchange_.folder()) : nullptr;
  if (tokenizer && (!there || there->fingerprint() != tokenizer->fingerprint())) {
    tokenizer->save(exchange_.staging());
    // Where both stand, the first is read.
    const bool json = is_there(exchange_.staging() / "tokenizer.json");
    put_manifests.put.push_back(json ? "tokenizer.json" : "tokenizer.model");
    if (!json && is_there(exchange_.folder() / "tokenizer.json"))
      put_manifests.remove.push_back("tokenizer.json");
  }
  std::vector<std::string> named_elsewhere;
  for (const auto& [name, manifest] : manifests_in(exchange_.folder())) {
    if (contains(old, name)) continue;
    for (const ShardManifest::Shard& shard : manifest.shards) named_elsewhere.push_back(shard.file);
  }
  for (const std::string& name : old) {
    if (!name.ends_with(".json") && !contains(named_elsewhere, name)) remove_old.remove.push_back(name);
  }
  exchange_.commit({put_shards, put_manifests, remove_old});
  return manifests;
}

}  // namespace ziggurat
