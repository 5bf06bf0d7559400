#include <algorithm>

#include <ziggurat/config/fields.h>
#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

// A list is judged by what its elements are.
bool is_number(const TypeInfo& type) {
  if (type.kind == ValueKind::list) return is_number(*type.element);
  return type.kind == ValueKind::integer || type.kind == ValueKind::real;
}

bool is_key(std::string_view name) {
  const auto letter = [](char c) { return c >= 'a' && c <= 'z'; };
  return !name.empty() && letter(name.front()) && std::all_of(name.begin(), name.end(), [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '_';
  });
}

}  // namespace

const Field* FieldList::find(std::string_view name) const {
  const auto found =
      std::find_if(fields_.begin(), fields_.end(), [&](const Field& field) { return field.name == name; });
  return found == fields_.end() ? nullptr : &*found;
}

void FieldList::add(std::string_view name, std::string_view help, const TypeInfo& type, void* value) {
  check(is_key(name), ErrorKind::internal, "[config] field name: expected [a-z][a-z0-9_]*, got '{}'", name);
  check(find(name) == nullptr, ErrorKind::internal,
        "[config] field '{}': expected once in its struct, got twice", name);
  check(!help.empty() && help.find('\n') == help.npos, ErrorKind::internal,
        "[config] field '{}': expected one line of help, got '{}'", name, help);
  fields_.push_back({.name = std::string(name), .help = std::string(help), .type = &type, .value = value});
}

void FieldList::apply(Unit unit) {
  Field& field = fields_.back();
  check(is_number(*field.type), ErrorKind::internal, "[config] field '{}': expected a number for a unit",
        field.name);
  field.unit = unit;
}

void FieldList::apply(const Range& range) {
  Field& field = fields_.back();
  check(is_number(*field.type), ErrorKind::internal, "[config] field '{}': expected a number for a range",
        field.name);
  if (range.low) {
    field.range.low = range.low;
    field.range.low_open = range.low_open;
  }
  if (range.high) {
    field.range.high = range.high;
    field.range.high_open = range.high_open;
  }
}

void FieldList::apply(NotEmpty) {
  Field& field = fields_.back();
  check(field.type->kind == ValueKind::text || field.type->kind == ValueKind::list, ErrorKind::internal,
        "[config] field '{}': expected a text or a list for not_empty", field.name);
  field.not_empty = true;
}

}  // namespace ziggurat
