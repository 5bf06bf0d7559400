#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include <ziggurat/hf/model_folder.h>
#include <ziggurat/io/untrusted_json.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::hf {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

std::string read_text(const std::string& path) {
  check(!fs::is_fifo(path) && !fs::is_socket(path), ErrorKind::checkpoint,
        "cannot read {}: it is no file; copy the folder again, with all its files", path);
  errno = fs::is_directory(path) ? EISDIR : 0;
  std::ifstream file(path);
  std::ostringstream text;
  if (errno == 0) text << file.rdbuf();
  check(errno != EISDIR && file.good(), ErrorKind::checkpoint,
        "cannot read {}: {}; copy the folder again, with all its files", path, std::strerror(errno));
  return text.str();
}

json read_json(const std::string& path) {
  try {
    return parse_untrusted_json(read_text(path));
  } catch (const JsonFault& fault) {
    fail(ErrorKind::checkpoint, "{} is no valid JSON, copy it again: {}", path, fault.what());
  }
}

// "'a', 'b' and 7 more"
std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kShown = 3;
  std::string text;
  for (size_t i = 0; i < std::min(kShown, names.size()); ++i) {
    text += fmt::format("{}'{}'", i == 0 ? "" : ", ", names[i]);
  }
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

std::string make_anew(const std::string& folder) {
  return fmt::format(
      "copy the folder again, with all its files, or make it anew in Python: "
      "AutoModelForCausalLM.from_pretrained(\"{}\").save_pretrained(NEW_FOLDER)",
      folder);
}

// Which file the index says that each tensor is in.
std::map<std::string, std::string> read_index(const std::string& index) {
  const json root = read_json(index);
  const bool has_map = root.is_object() && root.contains("weight_map") && root["weight_map"].is_object();
  check(has_map, ErrorKind::checkpoint, "{}: expected an object with a 'weight_map': copy it again", index);
  std::map<std::string, std::string> files;
  for (const auto& [name, file] : root["weight_map"].items()) {
    const std::string text = file.is_string() ? file.get<std::string>() : "";
    const bool plain =
        text.find('/') == std::string::npos && text.find_first_not_of('.') != std::string::npos;
    check(plain, ErrorKind::checkpoint,
          "{}: '{}' is in {}, which is no plain file name; expected that of a file beside it: copy it again",
          index, name, file.dump());
    files[name] = text;
  }
  check(!files.empty(), ErrorKind::checkpoint, "{} names no tensors: copy it again", index);
  return files;
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
  const bool a_run = fs::exists(path_ + "/config.yaml") || fs::exists(path_ + "/manifest.json");
  check(!a_run || fs::exists(config_path()), ErrorKind::checkpoint,
        "{} is a run of ziggurat's own, which `ziggurat train` goes on with as it is; expected a folder with "
        "config.json and model.safetensors",
        path_);
  config_ = read_json(config_path());
  const std::string single = path_ + "/model.safetensors", index = single + ".index.json";
  if (fs::exists(index)) {
    open_indexed(index);
  } else if (fs::exists(single)) {
    open("model.safetensors");
  } else {
    fail_without_weights();
  }
}

void ModelFolder::fail_without_weights() const {
  const bool pickled =
      fs::exists(path_ + "/pytorch_model.bin") || fs::exists(path_ + "/pytorch_model.bin.index.json");
  check(!pickled, ErrorKind::checkpoint,
        "{}: pytorch_model.bin is a program that loading would run; make it safetensors first, in Python: "
        "AutoModelForCausalLM.from_pretrained(\"{}\").save_pretrained(NEW_FOLDER, safe_serialization=True)",
        path_, path_);
  std::vector<std::string> others;
  for (const auto& entry : fs::directory_iterator(path_)) {
    if (entry.path().extension() == ".safetensors") others.push_back(entry.path().filename().string());
  }
  std::sort(others.begin(), others.end());
  check(others.empty(), ErrorKind::checkpoint,
        "{} holds {} and no model.safetensors.index.json, which says what belongs to the model: copy the "
        "folder again, with all its files",
        path_, listed(others));
  fail(ErrorKind::checkpoint,
       "{} holds neither model.safetensors nor model.safetensors.index.json: copy the folder again, with all "
       "its files",
       path_);
}

// What is read is what the index names: no tensor more, none from elsewhere.
void ModelFolder::open_indexed(const std::string& index) {
  const std::map<std::string, std::string> index_files = read_index(index);
  std::set<std::string> files;
  for (const auto& [name, file] : index_files) files.insert(file);
  for (const std::string& file : files) {
    check(fs::exists(fs::path(path_) / file), ErrorKind::checkpoint,
          "{} names {}, which is not there: copy the folder again, with all its files", index, file);
  }
  check(files.contains("model.safetensors") || !fs::exists(path_ + "/model.safetensors"),
        ErrorKind::checkpoint,
        "{} holds model.safetensors, and an index ({}) that names other files: two models. Take away the one "
        "that is not meant (transformers reads model.safetensors)",
        path_, index);
  for (const std::string& file : files) open(file);
  for (const auto& [name, file] : index_files) {
    const auto found = tensors_.find(name);
    const std::string where = found == tensors_.end() ? "in none of its files" : "in " + found->second.file;
    check(found != tensors_.end() && found->second.file == file, ErrorKind::checkpoint,
          "{}: '{}' is not in {} but {}; is a file cut off or of another model? {}", index, name, file, where,
          make_anew(path_));
  }
  std::map<std::string, std::vector<std::string>> unnamed;  // by file
  for (const auto& [name, place] : tensors_) {
    if (!index_files.contains(name) && !is_computed_table(name)) unnamed[place.file].push_back(name);
  }
  for (const auto& [file, names] : unnamed) {
    fail(ErrorKind::checkpoint, "{} does not name {} of {}: is it the index of another model? {}", index,
         listed(names), file, make_anew(path_));
  }
}

void ModelFolder::open(const std::string& file) {
  const fs::path path = fs::path(path_) / file;
  // A link, as in a hub's cache, is followed here: the file itself must not be one.
  const fs::path resolved = fs::is_symlink(path) ? fs::weakly_canonical(path) : path;
  files_.emplace_back(resolved.string(), std::nullopt, AcceptDtypes::any);
  for (const auto& [name, entry] : files_.back().entries()) {
    const auto [other, is_new] = tensors_.emplace(name, Place{file, &files_.back()});
    check(is_new, ErrorKind::checkpoint,
          "{}: '{}' stands in two files: {} and {}; is one of another model? {}", path_, name,
          other->second.file, file, make_anew(path_));
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

bool is_computed_table(const std::string& name) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") ||
         name.ends_with("rotary_emb.inv_freq");
}

}  // namespace ziggurat::hf
