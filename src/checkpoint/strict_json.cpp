#include "strict_json.h"

#include <array>
#include <set>
#include <utility>
#include <vector>

namespace ziggurat {

using nlohmann::json;

namespace {

constexpr std::array<std::pair<const char*, DType>, 4> kCodes = {
    {{"F32", DType::f32}, {"BF16", DType::bf16}, {"F64", DType::f64}, {"I32", DType::i32}}};

constexpr std::array<std::pair<const char*, int64_t>, 11> kOtherCodes = {{{"F16", 2},
                                                                          {"I64", 8},
                                                                          {"U64", 8},
                                                                          {"U32", 4},
                                                                          {"I16", 2},
                                                                          {"U16", 2},
                                                                          {"I8", 1},
                                                                          {"U8", 1},
                                                                          {"BOOL", 1},
                                                                          {"F8_E4M3", 1},
                                                                          {"F8_E5M2", 1}}};

Shape make_shape(const std::vector<int64_t>& d) {
  switch (d.size()) {
    case 0:
      return {};
    case 1:
      return {d[0]};
    case 2:
      return {d[0], d[1]};
    case 3:
      return {d[0], d[1], d[2]};
    default:
      return {d[0], d[1], d[2], d[3]};
  }
}

}  // namespace

void for_each_member(std::string_view text, const std::string& where, int max_depth,
                     const std::function<void(const std::string&, const json&)>& member) {
  std::vector<std::set<std::string>> seen;  // keys of the open objects
  std::string name;
  const auto on_event = [&](int depth, json::parse_event_t event, json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start:
        seen.emplace_back();
        [[fallthrough]];
      case json::parse_event_t::array_start:
        check(depth < max_depth, ErrorKind::checkpoint, "[checkpoint] {}: JSON nested deeper than {}", where,
              max_depth);
        return true;
      case json::parse_event_t::key: {
        const auto& key = parsed.get_ref<const std::string&>();
        check(seen.back().insert(key).second, ErrorKind::checkpoint, "[checkpoint] {}: duplicate name {}",
              where, shown(key));
        if (depth == 1) name = key;
        return true;
      }
      case json::parse_event_t::object_end:
        seen.pop_back();
        [[fallthrough]];
      case json::parse_event_t::array_end:
      case json::parse_event_t::value:
        if (depth != 1) return true;
        member(name, parsed);
        return false;  // forget it: memory stays that of one member
    }
    return true;
  };
  try {
    const json whole = json::parse(text, on_event);
    check(whole.is_object(), ErrorKind::checkpoint, "[checkpoint] {}: expected a JSON object", where);
  } catch (const json::exception& e) {
    fail(ErrorKind::checkpoint, "[checkpoint] {}: not valid JSON: {}", where, shown(e.what()));
  }
}

std::string shown(const std::string& name) {
  constexpr size_t kMost = 160;
  std::string text = "'";
  for (const char c : name.substr(0, kMost)) text += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  return text + (name.size() > kMost ? "'..." : "'");
}

int64_t json_int64(const json& value, const std::string& where) {
  check(value.is_number_unsigned() && value.get<uint64_t>() <= uint64_t{INT64_MAX}, ErrorKind::checkpoint,
        "[checkpoint] {}: expected a whole number from 0 to 2^63-1, got {}", where,
        value.is_primitive() ? shown(value.dump(-1, ' ', false, json::error_handler_t::replace))
                             : value.type_name());
  return value.get<int64_t>();
}

const std::string& json_string(const json& value, const std::string& where) {
  check(value.is_string(), ErrorKind::checkpoint, "[checkpoint] {}: expected a string, got {}", where,
        value.type_name());
  return value.get_ref<const std::string&>();
}

Shape json_shape(const json& value, const std::string& where) {
  check(value.is_array() && value.size() <= Shape::kMaxRank, ErrorKind::checkpoint,
        "[checkpoint] {}: expected a list of at most {} dims", where, Shape::kMaxRank);
  std::vector<int64_t> dims;
  for (const json& dim : value) dims.push_back(json_int64(dim, where));
  return make_shape(dims);
}

int64_t checked_bytes(const Shape& shape, int64_t element_bytes, const std::string& where) {
  int64_t bytes = element_bytes;
  for (int i = 0; i < shape.rank(); ++i) {
    check(!__builtin_mul_overflow(bytes, shape[i], &bytes), ErrorKind::checkpoint,
          "[checkpoint] {}: the size of shape {} overflows", where, shape);
  }
  return bytes;
}

const char* dtype_code(DType dtype) {
  for (const auto& [code, value] : kCodes) {
    if (value == dtype) return code;
  }
  fail(ErrorKind::internal, "[checkpoint] no safetensors code for dtype {}", to_string(dtype));
}

std::optional<DType> known_dtype(const std::string& code) {
  for (const auto& [known, value] : kCodes) {
    if (code == known) return value;
  }
  return std::nullopt;
}

int64_t element_bytes(const std::string& code) {
  if (const auto known = known_dtype(code)) return size_of(*known);
  for (const auto& [other, bytes] : kOtherCodes) {
    if (code == other) return bytes;
  }
  return 0;
}

DType dtype_from_code(const std::string& code, const std::string& where) {
  if (const auto known = known_dtype(code)) return *known;
  fail(ErrorKind::checkpoint, "[checkpoint] {}: expected dtype F32, BF16, F64 or I32, got {}", where,
       shown(code));
}

}  // namespace ziggurat
