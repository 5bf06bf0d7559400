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
  check(file.good(), ErrorKind::checkpoint, "cannot read {}: {}; copy the folder again, with all its files",
        path, std::strerror(errno));
  try {
    return json::parse(file);
  } catch (const json::exception& e) {
    fail(ErrorKind::checkpoint, "{} is no valid JSON, copy it again: {}", path, e.what());
  }
}

float half_to_float(uint16_t half) {
  const int exponent = half >> 10 & 0x1f;
  const auto mantissa = static_cast<float>(half & 0x3ff);
  float size = std::ldexp(mantissa + (exponent > 0 ? 1024.0f : 0.0f), std::max(exponent, 1) - 25);
  if (exponent == 0x1f) size = mantissa == 0 ? INFINITY : NAN;
  return half & 0x8000 ? -size : size;
}

// The values from `first` on, through a buffer of fixed size.
template <class Stored, class Widen>
void widen(const SafetensorsFile& file, const SafetensorsEntry& entry, int64_t first, std::span<float> into,
           const Widen& to_float) {
  std::vector<Stored> stored(std::min(into.size(), static_cast<size_t>(ModelFolder::kPiece)));
  while (!into.empty()) {
    const auto piece = std::span(stored).first(std::min(stored.size(), into.size()));
    file.read(entry, first * static_cast<int64_t>(sizeof(Stored)), std::as_writable_bytes(piece));
    parallel_for_blocks(std::ssize(piece), 65536, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
        into[i] = to_float(piece[i]);
    });
    first += std::ssize(piece);
    into = into.subspan(piece.size());
  }
}

constexpr const char* kDtypes[] = {"F32", "BF16", "F16", "F64"};

}  // namespace

ModelFolder::ModelFolder(const std::string& path) : path_(path) {
  check(fs::is_directory(path_), ErrorKind::checkpoint,
        "{} is no folder: expected one with config.json and model.safetensors, as save_pretrained() or "
        "`ziggurat "
        "export` writes it",
        path_);
  config_ = read_json(config_path());
  const std::string single = path_ + "/model.safetensors", index = single + ".index.json";
  if (fs::exists(index)) {
    const json listed = read_json(index);
    const bool has_map =
        listed.is_object() && listed.contains("weight_map") && listed["weight_map"].is_object();
    check(has_map, ErrorKind::checkpoint, "{}: expected an object with a 'weight_map': copy it again", index);
    std::set<std::string> files;
    for (const auto& [name, file] : listed["weight_map"].items()) {
      const std::string text = file.is_string() ? file.get<std::string>() : "";
      const bool plain =
          text.find('/') == std::string::npos && text.find_first_not_of('.') != std::string::npos;
      check(plain, ErrorKind::checkpoint, "{}: '{}' is in {}, which is no plain file name", index, name,
            file.dump());
      files.insert(text);
    }
    for (const std::string& file : files) {
      check(fs::exists(fs::path(path_) / file), ErrorKind::checkpoint,
            "{} names {}, which is not there: copy the folder again, with all its files", index, file);
      open(file);
    }
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
    fail(ErrorKind::checkpoint,
         "{} holds neither model.safetensors nor model.safetensors.index.json: copy the folder again, with "
         "all its "
         "files",
         path_);
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
    check(is_new, ErrorKind::checkpoint,
          "{}: '{}' stands in two files: {} and {}; take away the one of another model", path_, name,
          other->second.file, file);
  }
}

std::vector<std::string> ModelFolder::names() const {
  std::vector<std::string> all;
  for (const auto& [name, place] : tensors_) all.push_back(name);
  return all;
}

void ModelFolder::check_dtype(const std::string& name) const {
  const Place& place = tensors_.at(name);
  const std::string& code = place.contents->entry(name).code;
  const bool known = std::find(std::begin(kDtypes), std::end(kDtypes), code) != std::end(kDtypes);
  check(
      known, ErrorKind::checkpoint,
      "{}: '{}' is of dtype {}; expected F32, BF16, F16 or F64. Quantised weights cannot be trained on: take "
      "the model they were made from",
      place.contents->path(), name, code);
}

void ModelFolder::read(const std::string& name, int64_t first, std::span<float> into) const {
  check_dtype(name);
  const SafetensorsFile& file = *tensors_.at(name).contents;
  const SafetensorsEntry& stored = file.entry(name);
  if (stored.code == "F32") {
    file.read(stored, first * static_cast<int64_t>(sizeof(float)), std::as_writable_bytes(into));
  } else if (stored.code == "BF16") {
    widen<bf16>(file, stored, first, into, [](bf16 x) { return static_cast<float>(x); });
  } else if (stored.code == "F16") {
    widen<uint16_t>(file, stored, first, into, half_to_float);
  } else {
    widen<double>(file, stored, first, into, [](double x) { return static_cast<float>(x); });
  }
}

std::vector<float> ModelFolder::read(const std::string& name) const {
  std::vector<float> values(static_cast<size_t>(entry(name).shape.numel()));
  read(name, 0, values);
  return values;
}

bool ModelFolder::all_zero(const std::string& name) const {
  return every_piece(name, [](int64_t, std::span<const float> values) {
    return std::all_of(values.begin(), values.end(), [](float x) { return x == 0; });
  });
}

bool ModelFolder::equal(const std::string& a, const std::string& b) const {
  if (entry(a).shape != entry(b).shape) return false;
  std::vector<float> others;
  return every_piece(a, [&](int64_t first, std::span<const float> values) {
    others.resize(values.size());
    read(b, first, others);
    return std::equal(values.begin(), values.end(), others.begin());
  });
}

bool ModelFolder::every_piece(
    const std::string& name,
    const std::function<bool(int64_t first, std::span<const float> values)>& holds) const {
  const int64_t n = entry(name).shape.numel();
  std::vector<float> values(static_cast<size_t>(std::min(n, kPiece)));
  for (int64_t first = 0; first < n; first += kPiece) {
    const auto piece = std::span(values).first(static_cast<size_t>(std::min(kPiece, n - first)));
    read(name, first, piece);
    if (!holds(first, piece)) return false;
  }
  return true;
}

}  // namespace ziggurat::hf
