#include "manifest.h"

#include <charconv>
#include <filesystem>

#include "cure.h"
#include "strict_json.h"
#include <ziggurat/io/files.h>
#include <ziggurat/io/output_file.h>
#include <ziggurat/io/untrusted_json.h>

namespace ziggurat {

using nlohmann::json;

namespace {

constexpr std::string_view kHashKey = "\"manifest_hash\": \"";
constexpr std::string_view kEnd = "\"\n}\n";

json to_json(const Shape& shape) {
  json list = json::array();
  for (int i = 0; i < shape.rank(); ++i) list.push_back(shape[i]);
  return list;
}

json to_json(const SliceRecord& slice) {
  return {{"name", slice.name},
          {"dtype", dtype_code(slice.dtype)},
          {"global_shape", to_json(slice.global_shape)},
          {"begin", to_json(slice.box.begin)},
          {"extent", to_json(slice.box.extent)},
          {"stored_as", slice.stored_as}};
}

// Slice by slice: as one tree of values, the records of a job take ten times their text. `line`: between
// values; `indent`: of each value's own lines, -1: it has none.
void append(std::string& text, const FileRecord& record, const std::string& line, int indent) {
  const json head = {{"path", record.path}, {"bytes", record.bytes}, {"hash", record.hash}};
  const auto append_value = [&](const json& value, const std::string& before) {
    for (const char c : value.dump(indent)) {
      text += c;
      if (c == '\n') text.append(before, 1);  // texts hold none
    }
  };
  const std::string inner = line.empty() ? "" : line + " ", slice_line = line.empty() ? "" : inner + " ";
  append_value(head, line);
  text.resize(text.size() - line.size() - 1);  // the bracket, which comes after the slices
  text += "," + inner + (line.empty() ? "\"slices\":[" : "\"slices\": [");
  for (const SliceRecord& slice : record.slices) {
    text += (&slice == record.slices.data() ? "" : ",") + slice_line;
    append_value(to_json(slice), slice_line);
  }
  text += (record.slices.empty() ? "" : inner) + "]" + line + "}";
}

const json& member(const json& object, const char* key, const std::string& where) {
  check(object.is_object() && object.contains(key), ErrorKind::checkpoint, "[checkpoint] {}: '{}' is missing",
        where, key);
  return object[key];
}

Box rows_from_json(const json& rows, const Shape& shape, const std::string& where) {
  check(rows.is_array() && rows.size() == 2, ErrorKind::checkpoint,
        "[checkpoint] {}: rows must be [begin, end]", where);
  const int64_t begin = json_int64(rows[0], where), end = json_int64(rows[1], where);
  check(shape.rank() >= 1 && begin <= end, ErrorKind::checkpoint,
        "[checkpoint] {}: rows [{}, {}) of {} are impossible", where, begin, end, shape);
  return rows_of(shape, begin, end);
}

SliceRecord slice_from_json(const json& value, const std::string& where, int64_t version) {
  SliceRecord slice;
  slice.name = json_string(member(value, "name", where), where);
  slice.dtype = dtype_from_code(json_string(member(value, "dtype", where), where), where);
  slice.global_shape = json_shape(member(value, "global_shape", where), where);
  slice.stored_as = json_string(member(value, "stored_as", where), where);
  checked_bytes(slice.global_shape, size_of(slice.dtype), where);
  if (version < 3) {
    slice.box = rows_from_json(member(value, "rows", where), slice.global_shape, where);
  } else {
    slice.box = {json_shape(member(value, "begin", where), where),
                 json_shape(member(value, "extent", where), where)};
  }
  check(slice.global_shape.rank() >= 1 && fits(slice.box, slice.global_shape), ErrorKind::checkpoint,
        "[checkpoint] {}: {} elements from {} on of {} {} are impossible", where, slice.box.extent,
        slice.box.begin, shown(slice.name), slice.global_shape);
  check(version > 1 || !slice.stored_as.empty(), ErrorKind::checkpoint,
        "[checkpoint] {} has format version 1, but no file holds {}", where, shown(slice.name));
  return slice;
}

FileRecord file_from_json(const json& value, const std::string& where, int64_t version) {
  FileRecord record;
  record.path = json_string(member(value, "path", where), where);
  // A manifest never makes the reader open a file outside its own directory.
  check(!record.path.empty() && record.path != "." && record.path != ".." &&
            record.path.find_first_of(std::string("/\0", 2)) == std::string::npos,
        ErrorKind::checkpoint, "[checkpoint] {}: {} is not a plain file name", where, shown(record.path));
  record.bytes = json_int64(member(value, "bytes", where), where);
  record.hash = json_string(member(value, "hash", where), where);
  const json& slices = member(value, "slices", where);
  check(slices.is_array(), ErrorKind::checkpoint, "[checkpoint] {}: slices must be a list", where);
  for (const json& slice : slices)
    record.slices.push_back(slice_from_json(slice, where + ": " + record.path, version));
  return record;
}

json parse_json(std::string_view text, const std::string& where) {
  try {
    return parse_untrusted_json(text);
  } catch (const JsonFault& fault) {
    fail(ErrorKind::checkpoint, "[checkpoint] {}: not valid JSON: {}", where, shown(fault.what()));
  }
}

// The hash comes first: what follows may rely on the text being what was written.
void check_own_hash(const std::string& text, const std::string& where) {
  const size_t key = text.rfind(kHashKey);
  check(key != std::string::npos && text.ends_with(kEnd), ErrorKind::checkpoint,
        "[checkpoint] {} is cut off or damaged: it does not end with its hash", where);
  const size_t begin = key + kHashKey.size();
  const std::string found = text.substr(begin, text.size() - kEnd.size() - begin);
  const std::string expected = content_hash(as_bytes(std::string_view(text).substr(0, begin)));
  check(found == expected, ErrorKind::checkpoint,
        "[checkpoint] {} is damaged: its bytes hash to {}, it says {}", where, expected, shown(found));
}

}  // namespace

void check_slice(const TensorSlice& s) {
  check(s.global_shape.rank() >= 1 && fits(s.box, s.global_shape) && s.data.shape() == s.box.extent,
        ErrorKind::checkpoint, "[checkpoint] slice '{}': data {} are not {} of {}", s.name, s.data.shape(),
        s.box.str(), s.global_shape);
}

std::string step_name(int64_t step) { return fmt::format("step_{:08d}", step); }

std::optional<int64_t> step_of_name(const std::string& name) {
  constexpr std::string_view kPrefix = "step_";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
  const bool ours =
      error == std::errc() && end == name.data() + name.size() && step >= 0 && step_name(step) == name;
  return ours ? std::optional(step) : std::nullopt;
}

std::string set_aside(const std::string& step_directory) {
  int i = 1;
  const auto name = [&] { return fmt::format("{}.aside_{}", step_directory, i); };
  while (std::filesystem::exists(std::filesystem::symlink_status(name()))) ++i;
  rename_path(step_directory, name(), ErrorKind::checkpoint);
  return name();
}

std::string temporary_path(const std::string& dir, int64_t step) {
  return dir + "/." + step_name(step) + ".tmp";
}

std::string to_text(const FileRecord& record) {
  std::string text;
  append(text, record, "", -1);
  return text;
}

FileRecord file_record_from_text(const std::string& text, const std::string& where) {
  return file_from_json(parse_json(text, where), where, Manifest::kFormatVersion);
}

std::string to_text(const Manifest& manifest) {
  constexpr std::string_view kFiles = "\n \"files\": [";
  const json body = {{"format_version", Manifest::kFormatVersion},
                     {"run_id", manifest.run_id},
                     {"step", manifest.step},
                     {"world_size", manifest.world_size},
                     {"created", manifest.created},
                     {"state", manifest.state},
                     {"config", manifest.config},
                     {"files", json::array()}};
  const std::string without_files = body.dump(1);
  const size_t files = without_files.find(kFiles) + kFiles.size();
  std::string text = without_files.substr(0, files);
  for (const FileRecord& file : manifest.files) {
    text += &file == manifest.files.data() ? "\n  " : ",\n  ";
    append(text, file, "\n  ", 1);
  }
  if (!manifest.files.empty()) text += "\n ";
  text.append(without_files, files);
  text.resize(text.size() - 2);  // "\n}"
  text.append(",\n ").append(kHashKey);
  return text + content_hash(as_bytes(text)) + std::string(kEnd);
}

namespace {

int64_t checked_version(const json& body, const std::string& where) {
  const int64_t version =
      with_cure(kTakeAnother, [&] { return json_int64(member(body, "format_version", where), where); });
  check(Manifest::kOldestFormatVersion <= version && version <= Manifest::kFormatVersion,
        ErrorKind::checkpoint,
        "[checkpoint] {} has format version {}, this program reads versions {} to {}: read it with the "
        "program that wrote it, or a newer one",
        where, version, Manifest::kOldestFormatVersion, Manifest::kFormatVersion);
  return version;
}

Manifest manifest_from_json(const json& body, int64_t version, const std::string& where) {
  Manifest manifest;
  manifest.format_version = version;
  manifest.run_id = json_string(member(body, "run_id", where), where);
  manifest.step = json_int64(member(body, "step", where), where);
  manifest.world_size = json_int64(member(body, "world_size", where), where);
  manifest.created = json_string(member(body, "created", where), where);
  manifest.state = member(body, "state", where);
  manifest.config = json_string(member(body, "config", where), where);
  const json& files = member(body, "files", where);
  check(files.is_array(), ErrorKind::checkpoint, "[checkpoint] {}: files must be a list", where);
  for (const json& file : files) manifest.files.push_back(file_from_json(file, where, version));
  return manifest;
}

}  // namespace

Manifest read_manifest(const std::string& step_directory) {
  const std::string where = step_directory + "/" + kManifestName;
  check(std::filesystem::exists(std::filesystem::symlink_status(where)), ErrorKind::checkpoint,
        "[checkpoint] {} has no {}, which is written last: it was never complete, or lost it; {}",
        step_directory, kManifestName, kTakeAnother);
  const std::string text = ReadOnlyFile(where, ErrorKind::checkpoint, Links::refused).read_all();
  const json body = with_cure(kTakeAnother, [&] {
    check_own_hash(text, where);
    return parse_json(text, where);
  });
  const int64_t version = checked_version(body, where);
  Manifest manifest = with_cure(kTakeAnother, [&] { return manifest_from_json(body, version, where); });

  const auto named = step_of_name(std::filesystem::path(step_directory).filename().string());
  check(
      !named || *named == manifest.step, ErrorKind::checkpoint,
      "[checkpoint] {} is of step {}: it does not belong to this directory; give the folder its name {} back",
      where, manifest.step, step_name(manifest.step));
  return manifest;
}

}  // namespace ziggurat
