#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include <ziggurat/hf/model_folder.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::hf {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

json read_json(const std::string& path) {
  std::ifstream file(path);
  check(file.good(), ErrorKind::checkpoint, "cannot read {}: {}", path, std::strerror(errno));
  try {
    return json::parse(file);
  } catch (const json::exception& e) {
    fail(ErrorKind::checkpoint, "{} is no valid JSON: {}", path, e.what());
  }
}

float half_to_float(uint16_t half) {
  const int exponent = half >> 10 & 0x1f;
  const auto mantissa = static_cast<float>(half & 0x3ff);
  float size = std::ldexp(mantissa + (exponent > 0 ? 1024.0f : 0.0f), std::max(exponent, 1) - 25);
  if (exponent == 0x1f) size = mantissa == 0 ? INFINITY : NAN;
  return half & 0x8000 ? -size : size;
}

// Not through a typed pointer: files of others need not be aligned.
template <class Stored, class Widen>
std::vector<float> widened(std::span<const std::byte> bytes, const Widen& widen) {
  std::vector<float> values(bytes.size() / sizeof(Stored));
  parallel_for_blocks(static_cast<int64_t>(values.size()), 65536, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Stored stored;
      std::memcpy(&stored, bytes.data() + static_cast<size_t>(i) * sizeof(Stored), sizeof(Stored));
      values[static_cast<size_t>(i)] = widen(stored);
    }
  });
  return values;
}

}  // namespace

ModelFolder::ModelFolder(const std::string& path) : path_(path) {
  check(fs::is_directory(path_), ErrorKind::checkpoint, "{} is no folder", path_);
  config_ = read_json(config_path());
  const std::string single = path_ + "/model.safetensors", index = single + ".index.json";
  if (fs::exists(index)) {
    const json listed = read_json(index);
    const bool has_map =
        listed.is_object() && listed.contains("weight_map") && listed["weight_map"].is_object();
    check(has_map, ErrorKind::checkpoint, "{}: expected an object with a 'weight_map'", index);
    std::set<std::string> files;
    for (const auto& [name, file] : listed["weight_map"].items()) {
      const std::string text = file.is_string() ? file.get<std::string>() : "";
      const bool plain =
          text.find('/') == std::string::npos && text.find_first_not_of('.') != std::string::npos;
      check(plain, ErrorKind::checkpoint, "{}: '{}' is in {}, which is no plain file name", index, name,
            file.dump());
      files.insert(text);
    }
    for (const std::string& file : files) open(file);
    for (const auto& [name, file] : listed["weight_map"].items()) {
      const auto found = tensors_.find(name);
      const bool there = found != tensors_.end() && found->second.file == file.get<std::string>();
      check(there, ErrorKind::checkpoint, "{}: '{}' is not in {}; is a file cut off or of another model?",
            index, name, file.get<std::string>());
    }
    return;
  }
  if (!fs::exists(single)) {
    const bool pickled =
        fs::exists(path_ + "/pytorch_model.bin") || fs::exists(path_ + "/pytorch_model.bin.index.json");
    check(!pickled, ErrorKind::checkpoint,
          "{}: pytorch_model.bin is a program that loading would run; make it safetensors first, in Python: "
          "AutoModelForCausalLM.from_pretrained(\"{}\").save_pretrained(NEW_FOLDER, safe_serialization=True)",
          path_, path_);
    fail(ErrorKind::checkpoint, "{} holds neither model.safetensors nor model.safetensors.index.json", path_);
  }
  open("model.safetensors");
}

void ModelFolder::open(const std::string& file) {
  const fs::path path = fs::path(path_) / file;
  // A link, as in a hub's cache, is followed here: the file itself must not be one.
  const fs::path resolved = fs::is_symlink(path) ? fs::weakly_canonical(path) : path;
  files_.emplace_back(resolved.string(), std::nullopt, AcceptDtypes::any);
  for (const auto& [name, entry] : files_.back().entries()) {
    const auto [other, is_new] = tensors_.emplace(name, Place{file, &files_.back()});
    check(is_new, ErrorKind::checkpoint, "{}: '{}' stands in two files: {} and {}", path_, name,
          other->second.file, file);
  }
}

std::vector<std::string> ModelFolder::names() const {
  std::vector<std::string> all;
  for (const auto& [name, place] : tensors_) all.push_back(name);
  return all;
}

std::vector<float> ModelFolder::read(const std::string& name) const {
  const SafetensorsFile& file = *tensors_.at(name).contents;
  const std::string& code = file.entry(name).code;
  const std::span<const std::byte> bytes = file.data(name);
  if (code == "F32") return widened<float>(bytes, [](float x) { return x; });
  if (code == "BF16") return widened<bf16>(bytes, [](bf16 x) { return static_cast<float>(x); });
  if (code == "F16") return widened<uint16_t>(bytes, half_to_float);
  if (code == "F64") return widened<double>(bytes, [](double x) { return static_cast<float>(x); });
  fail(
      ErrorKind::checkpoint,
      "{}: '{}' is of dtype {}; expected F32, BF16, F16 or F64. Quantised weights cannot be trained on: take "
      "the model they were made from",
      file.path(), name, code);
}

}  // namespace ziggurat::hf
