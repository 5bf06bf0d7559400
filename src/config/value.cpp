#include "config/value.h"

#include <algorithm>

#include <fmt/format.h>

#include "config/node.h"
#include "config/number.h"

namespace ziggurat {
namespace {

std::string choices(const TypeInfo& type, const char* separator) {
  std::string text;
  for (const EnumName& name : type.names()) {
    if (!text.empty()) text += separator;
    text += name.name;
  }
  return text;
}

std::string number_noun(const Field& field) {
  const bool whole = field.type->kind == ValueKind::integer;
  switch (field.unit) {
    case Unit::none:
      return whole ? "a whole number" : "a number";
    case Unit::bytes:
      return "a number of bytes";
    case Unit::seconds:
      return whole ? "a duration in whole seconds" : "a duration";
    default:
      return fmt::format("a {}number of {}", whole ? "whole " : "", type_text(field));
  }
}

const char* number_example(Unit unit) {
  switch (unit) {
    case Unit::none:
      return "";
    case Unit::bytes:
      return " (such as 2GiB)";
    case Unit::seconds:
      return " (such as 90m)";
    default:
      return " (such as 1_000, 375M or 300B)";
  }
}

bool is_plain_safe(const std::string& text) {
  static constexpr std::string_view kReserved[] = {"true", "false", "yes", "no", "on", "off", "null"};
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  const auto letter = [&](char c) { return lower(c) >= 'a' && lower(c) <= 'z'; };
  const auto safe = [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '/' || c == '.' || c == '-' || c == '+';
  };
  if (text.empty() || !(letter(text.front()) || text.front() == '/' || text.front() == '_')) return false;
  if (!std::all_of(text.begin(), text.end(), safe)) return false;
  std::string folded = text;
  std::transform(folded.begin(), folded.end(), folded.begin(), lower);
  return std::find(std::begin(kReserved), std::end(kReserved), folded) == std::end(kReserved);
}

std::string yaml_text(const std::string& text) {
  if (is_plain_safe(text)) return text;
  std::string out = "\"";
  for (const char c : text) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + '"';
}

ParsedScalar parse_numeric(const Field& field, const std::string& text) {
  ParsedNumber number = parse_number(text, field.unit);
  if (!number.problem.empty()) return {.value = {}, .note = " (" + number.problem + ")"};
  if (field.type->kind == ValueKind::real) return {.value = number.real, .note = "", .ok = true};
  if (!number.whole) return {.value = {}, .note = " (it is not whole or does not fit 64 bits)"};
  if (field.type->small && *number.whole != static_cast<int>(*number.whole)) {
    return {.value = {}, .note = " (it does not fit 32 bits)"};
  }
  return {.value = *number.whole, .note = "", .ok = true};
}

ParsedScalar parse_choice(const Field& field, const std::string& text) {
  std::vector<std::string> names;
  for (const EnumName& name : field.type->names()) {
    if (name.name == text) return {.value = name.value, .note = "", .ok = true};
    names.push_back(name.name);
  }
  // Words of two or three letters are near to anything: gpu is not cpu.
  const std::string near = text.size() > 3 ? nearest_word(text, names) : "";
  return {.value = {}, .note = near.empty() ? "" : fmt::format("; did you mean '{}'?", near)};
}

bool bounds_hold(const Range& range, long double value) {
  if (range.low && (range.low_open ? value <= *range.low : value < *range.low)) return false;
  if (range.high && (range.high_open ? value >= *range.high : value > *range.high)) return false;
  return value == value;  // NaN is never in range
}

}  // namespace

std::string range_text(const Range& range) {
  std::string text;
  if (range.low) text = fmt::format(" {} {}", range.low_open ? "above" : "at least", *range.low);
  if (range.low && range.high) text += " and";
  if (range.high) text += fmt::format(" {} {}", range.high_open ? "below" : "at most", *range.high);
  return text;
}

std::string expected_text(const Field& field) {
  const std::string or_null = field.type->optional ? " or null" : "";
  switch (field.type->kind) {
    case ValueKind::boolean:
      return "true or false" + or_null;
    case ValueKind::integer:
    case ValueKind::real:
      return number_noun(field) + range_text(field.range) + or_null + number_example(field.unit);
    case ValueKind::text:
      return (field.not_empty ? "a text that is not empty" : "a text") + or_null;
    case ValueKind::choice:
      return "one of " + choices(*field.type, ", ") + or_null;
    case ValueKind::record:
      return "a map of keys";
    case ValueKind::list:
      return field.not_empty ? "a list that is not empty" : "a list";
  }
  return "";
}

std::string type_text(const Field& field) {
  switch (field.type->kind) {
    case ValueKind::boolean:
      return "bool";
    case ValueKind::text:
      return "text";
    case ValueKind::choice:
      return choices(*field.type, " | ");
    case ValueKind::record:
      return "map";
    case ValueKind::list:
      return "list of " +
             type_text(
                 {.name = "", .help = "", .type = field.type->element, .value = nullptr, .unit = field.unit});
    default:
      break;
  }
  switch (field.unit) {
    case Unit::tokens:
      return "tokens";
    case Unit::samples:
      return "samples";
    case Unit::steps:
      return "steps";
    case Unit::count:
      return "count";
    case Unit::bytes:
      return "bytes";
    case Unit::seconds:
      return "duration";
    case Unit::none:
      break;
  }
  return field.type->kind == ValueKind::integer ? "int" : "number";
}

Field element_field(const Field& list, size_t index) {
  Field element = list;
  element.name = fmt::format("{}", index);
  element.type = list.type->element;
  element.value = list.type->at(list.value, index);
  element.not_empty = false;
  return element;
}

bool in_range(const Field& field, const Scalar& value) {
  if (const int64_t* whole = std::get_if<int64_t>(&value); whole && field.type->kind == ValueKind::integer) {
    return bounds_hold(field.range, static_cast<long double>(*whole));
  }
  if (const double* real = std::get_if<double>(&value)) return bounds_hold(field.range, *real);
  if (const std::string* text = std::get_if<std::string>(&value)) return !field.not_empty || !text->empty();
  return true;
}

ParsedScalar parse_scalar(const Field& field, const std::string& text) {
  switch (field.type->kind) {
    case ValueKind::boolean:
      return {.value = text == "true", .note = "", .ok = text == "true" || text == "false"};
    case ValueKind::text:
      return {.value = text, .note = "", .ok = true};
    case ValueKind::choice:
      return parse_choice(field, text);
    default:
      return parse_numeric(field, text);
  }
}

std::string scalar_text(const Field& field) { return scalar_text(field, field.type->get(field.value)); }

std::string scalar_text(const Field& field, const Scalar& value) {
  if (std::holds_alternative<std::monostate>(value)) return "null";
  switch (field.type->kind) {
    case ValueKind::boolean:
      return std::get<bool>(value) ? "true" : "false";
    case ValueKind::integer:
      return number_text(std::get<int64_t>(value), field.unit);
    case ValueKind::real:
      return number_text(std::get<double>(value), field.unit);
    case ValueKind::text:
      return yaml_text(std::get<std::string>(value));
    default:
      break;
  }
  for (const EnumName& name : field.type->names()) {
    if (name.value == std::get<int64_t>(value)) return name.name;
  }
  return "invalid";
}

std::string scalar_list_text(const Field& field) {
  std::string text = "[";
  for (size_t i = 0; i < field.type->size(field.value); ++i) {
    if (i > 0) text += ", ";
    text += scalar_text(element_field(field, i));
  }
  return text + "]";
}

}  // namespace ziggurat
