#include "apps/checkpoint.h"

#include <filesystem>

#include <fmt/ranges.h>

#include "apps/on_ranks.h"
#include <ziggurat/checkpoint/compare.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/train/convert.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::apps {

namespace {

using nlohmann::ordered_json;

// Names of tensors are long.
void line(const std::string& what, const std::string& value) { fmt::print("  {:<44} {}\n", what, value); }

std::string bytes_text(int64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

int64_t bytes_of_files(const Manifest& manifest) {
  int64_t bytes = 0;
  for (const FileRecord& file : manifest.files) bytes += file.bytes;
  return bytes;
}

// Another program's config may have keys that this one does not know: then there is nothing to compare.
std::optional<train::RunConfig> config_of(const CheckpointReader& checkpoint) {
  try {
    train::RunConfig config;
    parse_config(config, checkpoint.manifest().config, checkpoint.path());
    return config;
  } catch (const Error& e) {
    warn("its config is not one of this program: {}", e.what());
    return std::nullopt;
  }
}

ordered_json json_of(const CheckpointReader& checkpoint) {
  const Manifest& m = checkpoint.manifest();
  ordered_json files = ordered_json::array(), tensors = ordered_json::object();
  for (const FileRecord& file : m.files) {
    files.push_back({{"path", file.path}, {"bytes", file.bytes}, {"hash", file.hash}});
  }
  for (const std::string& name : checkpoint.names()) {
    const auto& info = checkpoint.tensor(name);
    std::vector<int64_t> shape;
    for (int i = 0; i < info.shape.rank(); ++i) shape.push_back(info.shape[i]);
    tensors[name] = {{"dtype", to_string(info.dtype)}, {"shape", shape}};
  }
  return {{"path", checkpoint.path()},
          {"format_version", m.format_version},
          {"run", m.run_id},
          {"lineage", lineage_of(m)},
          {"step", m.step},
          {"created", m.created},
          {"ranks", m.world_size},
          {"bytes", bytes_of_files(m)},
          {"state", m.state},
          {"files", files},
          {"tensors", tensors},
          {"config", m.config}};
}

void print_tensors(const CheckpointReader& checkpoint) {
  for (const std::string& name : checkpoint.names()) {
    const auto& info = checkpoint.tensor(name);
    line(name, fmt::format("{} {}", to_string(info.dtype), info.shape));
  }
}

// The checkpoint that is meant, or all that the folder holds, whole or not.
std::vector<std::string> checkpoints_at(const std::string& path) {
  for (const std::string& folder : {path, path + "/checkpoints"}) {
    std::vector<std::string> found = step_folders(folder);
    if (!found.empty()) return found;
  }
  return {path};
}

// On one line.
std::string shown(const nlohmann::json& value) {
  constexpr size_t kMost = 100;
  const std::string text = value.dump();
  return text.size() > kMost ? text.substr(0, kMost) + "..." : text;
}

void print_state_changes(const nlohmann::json& before, const nlohmann::json& after) {
  for (const auto& [key, value] : before.items()) {
    if (after.contains(key) && after[key] != value) line(key, shown(value) + " -> " + shown(after[key]));
  }
}

}  // namespace

void checkpoint_inspect(const std::string& path, bool json) {
  const CheckpointReader checkpoint(path);
  if (json) return fmt::print("{}\n", json_of(checkpoint).dump(2));
  const Manifest& m = checkpoint.manifest();
  fmt::print("{}\n", checkpoint.path());
  line("run", m.run_id);
  line("lineage", lineage_of(m).empty() ? "none" : lineage_of(m));
  line("step", std::to_string(m.step));
  line("created", m.created);
  line("format version", std::to_string(m.format_version));
  line("size", fmt::format("{} in {} files", bytes_text(bytes_of_files(m)), m.files.size()));
  fmt::print("state\n");
  for (const auto& [key, value] : m.state.items()) line(key, shown(value));
  fmt::print("files\n");
  for (const FileRecord& file : m.files)
    line(file.path, fmt::format("{} {}", bytes_text(file.bytes), file.hash));
  fmt::print("tensors\n");
  print_tensors(checkpoint);
  fmt::print("config, where it is not the default\n");
  if (const auto config = config_of(checkpoint)) fmt::print("{}", dump_config(*config, DumpMode::changed));
}

void checkpoint_verify(const std::string& path) {
  std::vector<std::string> damaged;
  for (const std::string& folder : checkpoints_at(path)) {
    try {
      CheckpointReader checkpoint(folder);
      const auto& files = checkpoint.manifest().files;
      const int64_t total = bytes_of_files(checkpoint.manifest());
      Progress progress("verify", "", total);
      int64_t done = 0;
      for (size_t i = 0; i < files.size(); ++i) {
        checkpoint.verify(static_cast<int>(i), static_cast<int>(files.size()));
        progress.update(done += files[i].bytes);
      }
      fmt::print("{}: ok, {} in {} files\n", checkpoint.path(), bytes_text(total), files.size());
    } catch (const Error& e) {
      damaged.emplace_back(e.what());
    }
  }
  check(damaged.empty(), ErrorKind::checkpoint, "{}", fmt::join(damaged, "\n"));
}

void checkpoint_diff(const std::string& path_a, const std::string& path_b, bool json) {
  CheckpointReader a(path_a), b(path_b);
  Progress progress("diff", "elements");
  std::vector<TensorDifference> tensors = compare(a, b, [&](int64_t done, int64_t total) {
    if (done < total) progress(done, total);
  });
  const size_t compared = tensors.size();
  std::erase_if(tensors, [](const TensorDifference& d) { return d.different == 0 && d.note.empty(); });
  std::vector<ConfigDifference> keys;
  const auto config_a = config_of(a), config_b = config_of(b);
  if (config_a && config_b) keys = config_diff(*config_a, *config_b);

  if (json) {
    ordered_json out = {{"a", a.path()}, {"b", b.path()}, {"tensors", compared}};
    out["different"] = ordered_json::array(), out["config"] = ordered_json::array();
    for (const TensorDifference& d : tensors) {
      ordered_json one = {{"name", d.name}};
      if (!d.note.empty()) one["note"] = d.note;
      if (d.note.empty()) {
        one.update({{"elements", d.elements},
                    {"different", d.different},
                    {"largest", d.largest},
                    {"relative", d.relative}});
      }
      out["different"].push_back(one);
    }
    for (const ConfigDifference& d : keys)
      out["config"].push_back({{"key", d.key}, {"a", d.before}, {"b", d.after}});
    return fmt::print("{}\n", out.dump(2));
  }
  fmt::print("{} -> {}\n", a.path(), b.path());
  print_state_changes(a.manifest().state, b.manifest().state);
  for (const ConfigDifference& d : keys) line(d.key, d.before + " -> " + d.after);
  for (const TensorDifference& d : tensors) {
    line(d.name, !d.note.empty() ? d.note
                                 : fmt::format("{} of {} elements, by {:.3g} at most, {:.3g} of its norm",
                                               d.different, d.elements, d.largest, d.relative));
  }
  fmt::print("{} of {} tensors differ, and {} keys of the config\n", tensors.size(), compared, keys.size());
}

void checkpoint_convert(const ConvertArguments& arguments) {
  check_one_process("checkpoint convert");
  CheckpointReader from(arguments.checkpoint);
  train::Conversion conversion;
  if (!arguments.moments.empty()) conversion.moments = arguments.moments == "bf16" ? DType::bf16 : DType::f32;
  conversion.weights_only = arguments.weights_only;
  Progress progress("convert", "elements");
  train::convert_checkpoint(from, arguments.output, conversion, std::ref(progress));
  const CheckpointReader made(arguments.output);
  fmt::print("{}: {}, of {} {}\n", made.path(), bytes_text(bytes_of_files(made.manifest())), from.path(),
             bytes_text(bytes_of_files(from.manifest())));
}

}  // namespace ziggurat::apps
