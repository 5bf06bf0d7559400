#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <utility>

#include "cure.h"
#include "strict_json.h"
#include <ziggurat/checkpoint/safetensors.h>
#include <ziggurat/io/output_file.h>

namespace ziggurat {

using nlohmann::json;
static_assert(std::endian::native == std::endian::little, "safetensors data are little-endian");

namespace {

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kDataAlignment = 64;  // of the first tensor in the file, hence in the mapping
constexpr const char* kMetadata = "__metadata__";

ReadOnlyFile open_for_reading(const std::string& path) {
  return ReadOnlyFile(path, ErrorKind::checkpoint, Links::refused);
}

// Size and hash of a file, as it was written.
void check_identity(const ReadOnlyFile& file, const std::string& path, const WrittenFile& expected) {
  const int64_t size = file.identity().bytes;
  check(size == expected.bytes, ErrorKind::checkpoint,
        "[safetensors] {} is damaged: expected {} bytes, found {}", path, expected.bytes, size);
  Hasher hasher;
  std::vector<std::byte> buffer(static_cast<size_t>(std::min(size, int64_t{1} << 20)));
  for (int64_t at = 0; at < size; at += std::ssize(buffer)) {
    const auto piece = std::span(buffer).first(static_cast<size_t>(std::min(std::ssize(buffer), size - at)));
    file.read(at, piece);
    hasher.update(piece);
  }
  const std::string found = content_hash(hasher);
  check(found == expected.hash, ErrorKind::checkpoint,
        "[safetensors] {} is damaged or of another checkpoint: expected hash {}, found {}", path,
        expected.hash, found);
}

std::string make_header(std::span<const TensorHeader> tensors,
                        const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  int64_t offset = 0;
  for (const auto& [name, dtype, shape] : tensors) {
    check(name != kMetadata && !header.contains(name), ErrorKind::internal,
          "[safetensors] tensor name '{}' is reserved or used twice", name);
    const int64_t end = offset + shape.numel() * size_of(dtype);
    json dims = json::array();
    for (int i = 0; i < shape.rank(); ++i) dims.push_back(shape[i]);
    header[name] = {{"dtype", dtype_code(dtype)}, {"shape", dims}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  const auto used = kLengthBytes + static_cast<int64_t>(text.size());
  text.append(static_cast<size_t>((kDataAlignment - used % kDataAlignment) % kDataAlignment), ' ');
  check(static_cast<int64_t>(text.size()) <= SafetensorsFile::kMaxHeaderBytes, ErrorKind::internal,
        "[safetensors] a header of {} bytes for {} tensors is over the limit of {}", text.size(),
        tensors.size(), SafetensorsFile::kMaxHeaderBytes);
  return text;
}

SafetensorsEntry parse_entry(const std::string& name, const json& value, int64_t data_begin,
                             int64_t file_bytes, AcceptDtypes accept, const std::string& where) {
  check(value.is_object() && value.size() == 3 && value.contains("dtype") && value.contains("shape") &&
            value.contains("data_offsets"),
        ErrorKind::checkpoint, "[safetensors] {}: expected exactly dtype, shape and data_offsets", where);
  const json& offsets = value["data_offsets"];
  check(offsets.is_array() && offsets.size() == 2, ErrorKind::checkpoint,
        "[safetensors] {}: data_offsets must be [begin, end]", where);
  SafetensorsEntry entry;
  entry.name = name;
  entry.code = json_string(value["dtype"], where);
  entry.dtype = accept == AcceptDtypes::any ? known_dtype(entry.code) : dtype_from_code(entry.code, where);
  entry.shape = json_shape(value["shape"], where);
  const int64_t begin = json_int64(offsets[0], where), end = json_int64(offsets[1], where);
  const int64_t data_bytes = file_bytes - data_begin;
  check(begin <= end && end <= data_bytes, ErrorKind::checkpoint,
        "[safetensors] {}: data_offsets [{}, {}] outside the {} data bytes of the file, as if it were cut "
        "off",
        where, begin, end, data_bytes);
  if (const int64_t element = element_bytes(entry.code)) {
    const int64_t expected = checked_bytes(entry.shape, element, where);
    check(end - begin == expected, ErrorKind::checkpoint,
          "[safetensors] {}: shape {} of {} needs {} bytes, data_offsets [{}, {}] hold {}", where,
          entry.shape, shown(entry.code), expected, begin, end, end - begin);
  }
  entry.begin = data_begin + begin;
  entry.end = data_begin + end;
  return entry;
}

}  // namespace

WrittenFile write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                              const std::map<std::string, std::string>& metadata) {
  std::vector<NamedTensor> ordered(tensors.begin(), tensors.end());
  std::stable_sort(ordered.begin(), ordered.end(), [](const NamedTensor& a, const NamedTensor& b) {
    return size_of(a.data.dtype()) > size_of(b.data.dtype());
  });
  std::vector<TensorHeader> headers;
  for (const auto& [name, data] : ordered) {
    check(data.device() == Device::cpu, ErrorKind::internal,
          "[safetensors] tensor '{}' is on {}, expected cpu", name, to_string(data.device()));
    headers.push_back({name, data.dtype(), data.shape()});
  }
  return write_safetensors(
      path, headers, [&](size_t i, const WriteBytes& write) { write(bytes_of(ordered[i].data)); }, metadata);
}

WrittenFile write_safetensors(const std::string& path, std::span<const TensorHeader> tensors,
                              const std::function<void(size_t i, const WriteBytes& write)>& make,
                              const std::map<std::string, std::string>& metadata) {
  const std::string header = make_header(tensors, metadata);
  const auto length = static_cast<uint64_t>(header.size());
  OutputFile file(path, ErrorKind::checkpoint);
  Hasher hasher;
  const WriteBytes write = [&](std::span<const std::byte> bytes) {
    file.write(bytes);
    hasher.update(bytes);
  };
  write(std::as_bytes(std::span(&length, 1)));
  write(as_bytes(header));
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t end = hasher.bytes() + tensors[i].shape.numel() * size_of(tensors[i].dtype);
    make(i, write);
    check(hasher.bytes() == end, ErrorKind::internal,
          "[safetensors] tensor '{}' was announced as {} {} and is {} bytes too long", tensors[i].name,
          to_string(tensors[i].dtype), tensors[i].shape, hasher.bytes() - end);
  }
  file.finish();
  return {hasher.bytes(), content_hash(hasher)};
}

SafetensorsFile::SafetensorsFile(const std::string& path, const std::optional<WrittenFile>& expected,
                                 AcceptDtypes accept)
    : path_(path) {
  const ReadOnlyFile file = open_for_reading(path);
  identity_ = file.identity();
  if (expected) with_cure(kTakeAnother, [&] { check_identity(file, path, *expected); });
  check(identity_.bytes >= kLengthBytes + 2, ErrorKind::checkpoint,
        "[safetensors] {}: {} bytes are too few for a header, as if it were cut off; {}", path_,
        identity_.bytes, kCopyAgain);
  uint64_t length = 0;
  file.read(0, std::as_writable_bytes(std::span(&length, 1)));
  check(std::memcmp(&length, "version ", sizeof length) != 0, ErrorKind::checkpoint,
        "[safetensors] {} is a pointer of Git LFS to the file, not the file: fetch it by `git lfs pull`",
        path_);
  check(length <= uint64_t{kMaxHeaderBytes} && static_cast<int64_t>(length) <= identity_.bytes - kLengthBytes,
        ErrorKind::checkpoint,
        "[safetensors] {}: header length {} is over the limit of {} or the file of {} bytes, as if it were "
        "damaged or of another "
        "format; {}",
        path_, length, kMaxHeaderBytes, identity_.bytes, kCopyAgain);
  std::string text(length, '\0');
  file.read(kLengthBytes, std::as_writable_bytes(std::span(text)));
  with_cure(kCopyAgain, [&] { parse_header(text, accept); });
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : path_(std::move(other.path_)),
      identity_(other.identity_),
      mapped_(std::move(other.mapped_)),
      entries_(std::move(other.entries_)),
      metadata_(std::move(other.metadata_)) {}

void SafetensorsFile::parse_header(std::string_view text, AcceptDtypes accept) {
  check(text.starts_with('{'), ErrorKind::checkpoint, "[safetensors] {}: the header must start with '{{'",
        path_);

  const int64_t data_begin = kLengthBytes + std::ssize(text), file_bytes = identity_.bytes;
  for_each_member(text, path_, 3, [&](const std::string& name, const json& value) {
    const std::string where = path_ + ": " + shown(name);
    if (name != kMetadata) {
      entries_.emplace(name, parse_entry(name, value, data_begin, file_bytes, accept, where));
      return;
    }
    check(value.is_object(), ErrorKind::checkpoint, "[safetensors] {}: expected an object of strings", where);
    for (const auto& [key, text_value] : value.items()) metadata_[key] = json_string(text_value, where);
  });
  check_coverage(data_begin);
}

// Every data byte belongs to exactly one tensor: nothing can hide in a gap, no tensor aliases another.
void SafetensorsFile::check_coverage(int64_t data_begin) const {
  std::vector<const SafetensorsEntry*> order;
  for (const auto& [name, entry] : entries_) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const SafetensorsEntry* a, const SafetensorsEntry* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  int64_t covered = data_begin;
  for (const SafetensorsEntry* entry : order) {
    check(entry->begin == covered, ErrorKind::checkpoint,
          "[safetensors] {}: {} at byte {} {} (expected byte {})", path_, shown(entry->name), entry->begin,
          entry->begin < covered ? "overlaps the tensor before it" : "leaves a hole before it", covered);
    covered = entry->end;
  }
  check(covered == identity_.bytes, ErrorKind::checkpoint,
        "[safetensors] {}: {} bytes after the last tensor belong to none", path_, identity_.bytes - covered);
}

const SafetensorsEntry& SafetensorsFile::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  check(found != entries_.end(), ErrorKind::checkpoint, "[safetensors] {}: no tensor {}; {}", path_,
        shown(name), kCopyAgain);
  return found->second;
}

ReadOnlyFile SafetensorsFile::reopened() const {
  return {path_, identity_, ErrorKind::checkpoint, Links::refused};
}

void SafetensorsFile::read(const SafetensorsEntry& entry, int64_t first, std::span<std::byte> into) const {
  reopened().read(entry.begin + first, into);
}

std::span<const std::byte> SafetensorsFile::data(const std::string& name) const {
  const SafetensorsEntry& found = entry(name);
  const std::lock_guard lock(mapping_);
  if (!mapped_) mapped_.emplace(reopened());
  return mapped_->bytes().subspan(static_cast<size_t>(found.begin),
                                  static_cast<size_t>(found.end - found.begin));
}

Tensor SafetensorsFile::tensor(const std::string& name) const {
  const SafetensorsEntry& found = entry(name);
  check(found.dtype.has_value(), ErrorKind::checkpoint,
        "[safetensors] {}: {} is of dtype {}, expected "
        "F32, BF16, F64 or I32; convert it",
        path_, shown(name), shown(found.code));
  check(found.begin % size_of(*found.dtype) == 0, ErrorKind::checkpoint,
        "[safetensors] {}: {} at byte {} is not aligned for {}; write the file again with a library that "
        "aligns "
        "tensors",
        path_, shown(name), found.begin, found.code);
  return Tensor(const_cast<std::byte*>(data(name).data()), *found.dtype, found.shape);
}

}  // namespace ziggurat
