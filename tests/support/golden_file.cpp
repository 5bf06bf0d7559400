#include "tests/support/golden_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

#include <nlohmann/json.hpp>

#include "tests/support/source_dir.h"
#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

using Json = nlohmann::json;
static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr size_t kLengthBytes = 8;

size_t size_of_dtype(const std::string& dtype) {
  if (dtype == "F64") return 8;
  if (dtype == "F32" || dtype == "I32") return 4;
  fail(ErrorKind::checkpoint, "dtype {} is none of F64, F32, I32", dtype);
}

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  check(file.good(), ErrorKind::checkpoint, "[golden] {}: cannot be opened; scripts/golden makes these files",
        path);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <class T>
auto values_as(const char* bytes, size_t count, auto convert) {
  std::vector<decltype(convert(T{}))> values(count);
  for (size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
    values[i] = convert(value);
  }
  return values;
}

}  // namespace

GoldenFile::GoldenFile(const std::string& path) : path_(path), content_(read_all(path)) {
  uint64_t header_bytes = 0;
  check(content_.size() >= kLengthBytes, ErrorKind::checkpoint, "[golden] {}: shorter than 8 bytes", path_);
  std::memcpy(&header_bytes, content_.data(), kLengthBytes);
  check(header_bytes <= content_.size() - kLengthBytes, ErrorKind::checkpoint,
        "[golden] {}: header of {} bytes in a file of {}", path_, header_bytes, content_.size());
  const size_t data_begin = kLengthBytes + header_bytes;

  std::string place = "header";
  try {
    const Json header = Json::parse(content_.begin() + kLengthBytes,
                                    content_.begin() + static_cast<std::ptrdiff_t>(data_begin));
    for (const auto& [name, value] : header.get<std::map<std::string, Json>>()) {
      place = name;
      if (name == "__metadata__") {
        metadata_ = value.get<std::map<std::string, std::string>>();
        continue;
      }
      Entry entry{value.at("dtype").get<std::string>(), {}, 0, 0};
      size_t bytes = size_of_dtype(entry.dtype);
      for (const Json& dim : value.at("shape")) {
        check(dim.is_number_unsigned(), ErrorKind::checkpoint, "dim {} is no size", dim.dump());
        entry.shape.push_back(dim.get<int64_t>());
        bytes *= dim.get<size_t>();
      }
      const Json& offsets = value.at("data_offsets");
      check(offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() &&
                offsets[1].is_number_unsigned(),
            ErrorKind::checkpoint, "data_offsets {} are no pair of sizes", offsets.dump());
      entry.begin = data_begin + offsets[0].get<size_t>();
      entry.end = data_begin + offsets[1].get<size_t>();
      check(entry.begin <= entry.end && entry.end <= content_.size() && entry.end - entry.begin == bytes,
            ErrorKind::checkpoint, "data_offsets {} do not fit {} bytes of {} data bytes", offsets.dump(),
            bytes, content_.size() - data_begin);
      entries_.emplace(name, std::move(entry));
    }
  } catch (const std::exception& e) {
    fail(ErrorKind::checkpoint, "[golden] {}: {}: {}", path_, place, e.what());
  }
  check_coverage(data_begin);
}

void GoldenFile::check_coverage(size_t data_begin) const {
  std::vector<const Entry*> by_place;
  for (const auto& [name, e] : entries_) by_place.push_back(&e);
  std::sort(by_place.begin(), by_place.end(), [](auto* a, auto* b) { return a->begin < b->begin; });
  size_t at = data_begin;
  for (const Entry* e : by_place) {
    check(e->begin == at, ErrorKind::checkpoint, "[golden] {}: hole or overlap at byte {}", path_, at);
    at = e->end;
  }
  check(at == content_.size(), ErrorKind::checkpoint, "[golden] {}: {} bytes belong to no tensor", path_,
        content_.size() - at);
}

GoldenFile GoldenFile::committed(const std::string& stem) {
  return GoldenFile(test::source_dir() + "/tests/golden/data/" + stem + ".safetensors");
}

std::vector<std::string> GoldenFile::names(const std::string& prefix) const {
  std::vector<std::string> found;
  for (const auto& [name, e] : entries_) {
    if (name.starts_with(prefix)) found.push_back(name);
  }
  return found;
}

const GoldenFile::Entry& GoldenFile::entry(const std::string& name) const {
  const auto it = entries_.find(name);
  check(it != entries_.end(), ErrorKind::checkpoint, "[golden] {}: no tensor {}", path_, name);
  return it->second;
}

const std::vector<int64_t>& GoldenFile::shape(const std::string& name) const { return entry(name).shape; }

std::vector<double> GoldenFile::doubles(const std::string& name) const {
  const Entry& e = entry(name);
  check(e.dtype != "I32", ErrorKind::checkpoint, "[golden] {}: {} is {}, expected F64 or F32", path_, name,
        e.dtype);
  const auto widen = [](auto value) { return static_cast<double>(value); };
  const char* bytes = content_.data() + e.begin;
  return e.dtype == "F64" ? values_as<double>(bytes, (e.end - e.begin) / sizeof(double), widen)
                          : values_as<float>(bytes, (e.end - e.begin) / sizeof(float), widen);
}

std::vector<int64_t> GoldenFile::ints(const std::string& name) const {
  const Entry& e = entry(name);
  check(e.dtype == "I32", ErrorKind::checkpoint, "[golden] {}: {} is {}, expected I32", path_, name, e.dtype);
  return values_as<int32_t>(content_.data() + e.begin, (e.end - e.begin) / sizeof(int32_t),
                            [](int32_t value) { return int64_t{value}; });
}

const std::string& GoldenFile::text(const std::string& key) const {
  const auto it = metadata_.find(key);
  check(it != metadata_.end(), ErrorKind::checkpoint, "[golden] {}: no metadata {}", path_, key);
  return it->second;
}

double GoldenFile::number(const std::string& key) const {
  std::istringstream in(text(key));
  double value = 0;
  check((in >> value) && (in >> std::ws).eof(), ErrorKind::checkpoint, "[golden] {}: {} = '{}' is no number",
        path_, key, text(key));
  return value;
}

std::vector<std::string> GoldenFile::words(const std::string& key) const {
  std::istringstream in(text(key));
  return {std::istream_iterator<std::string>(in), {}};
}

}  // namespace ziggurat
