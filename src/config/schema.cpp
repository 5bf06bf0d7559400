// What a config may hold, for editors (JSON schema, draft 7) and for people (a table).
#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "config/keys.h"
#include "config/value.h"
#include <ziggurat/config/config.h>

namespace ziggurat {
namespace {

using Json = nlohmann::ordered_json;

// ---- schema ---------------------------------------------------------------------------------------------

const char* unit_pattern(Unit unit) {
  switch (unit) {
    case Unit::bytes:
      return R"(^[0-9][0-9_]*(\.[0-9]+)?([eE][+-]?[0-9]+)? *([KMGT]i?)?B?$)";
    case Unit::seconds:
      return R"(^([0-9][0-9_]*(\.[0-9]+)? *(d|h|m|s|ms))+$)";
    default:
      return R"(^[0-9][0-9_]*(\.[0-9]+)?([eE][+-]?[0-9]+)? *[KMBT]?$)";
  }
}

Json number_schema(const Field& field) {
  Json number;
  number["type"] = field.type->kind == ValueKind::integer ? "integer" : "number";
  const auto bound = [&](const char* name, double value) {
    if (field.type->kind == ValueKind::integer && value == static_cast<double>(static_cast<int64_t>(value))) {
      number[name] = static_cast<int64_t>(value);
    } else {
      number[name] = value;
    }
  };
  const Range& range = field.range;
  if (range.low) bound(range.low_open ? "exclusiveMinimum" : "minimum", *range.low);
  if (range.high) bound(range.high_open ? "exclusiveMaximum" : "maximum", *range.high);
  if (field.unit == Unit::none) return number;
  return {{"anyOf", {number, {{"type", "string"}, {"pattern", unit_pattern(field.unit)}}}}};
}

Json record_schema(const TypeInfo& type, void* value);

Json value_schema(const Field& field) {
  switch (field.type->kind) {
    case ValueKind::boolean:
      return {{"type", "boolean"}};
    case ValueKind::text: {
      Json text = {{"type", "string"}};
      if (field.not_empty) text["minLength"] = 1;
      return text;
    }
    case ValueKind::choice: {
      Json names = Json::array();
      for (const EnumName& name : field.type->names()) names.push_back(name.name);
      return {{"enum", names}};
    }
    case ValueKind::record:
      return record_schema(*field.type, field.value);
    case ValueKind::list: {
      const std::shared_ptr<void> element = field.type->element->make();
      Field inner = field;
      inner.type = field.type->element;
      inner.value = element.get();
      inner.not_empty = false;
      Json list = {{"type", "array"}, {"items", value_schema(inner)}};
      if (field.not_empty) list["minItems"] = 1;
      return list;
    }
    default:
      return number_schema(field);
  }
}

Json default_json(const Field& field, const Scalar& value) {
  if (std::holds_alternative<std::monostate>(value)) return nullptr;
  if (const bool* flag = std::get_if<bool>(&value)) return *flag;
  if (const double* real = std::get_if<double>(&value)) return *real;
  if (const std::string* text = std::get_if<std::string>(&value)) return *text;
  if (field.type->kind == ValueKind::integer) return std::get<int64_t>(value);
  return scalar_text(field, value);
}

Json record_schema(const TypeInfo& type, void* value) {
  FieldList list;
  type.fields(value, list);
  Json properties = Json::object();
  for (const Field& field : list.fields()) {
    Json property = value_schema(field);
    if (field.type->optional) property = {{"anyOf", {property, {{"type", "null"}}}}};
    property["description"] = field.help;
    if (field.type->is_scalar()) property["default"] = default_json(field, field.type->get(field.value));
    properties[field.name] = std::move(property);
  }
  return {{"type", "object"}, {"properties", std::move(properties)}, {"additionalProperties", false}};
}

// ---- table ----------------------------------------------------------------------------------------------

using Row = std::array<std::string, 4>;  // key, type, default, help

Row help_row(const std::string& key, const Field& field) {
  if (field.type->kind == ValueKind::record) return {key, "", "", field.help};
  const bool records = field.type->kind == ValueKind::list && field.type->element->kind == ValueKind::record;
  const std::string unset = field.type->is_scalar() ? scalar_text(field)
                            : records               ? fmt::format("{} of them", field.type->size(field.value))
                                                    : scalar_list_text(field);
  const std::string optional = field.type->optional ? " or null" : "";
  return {key, type_text(field) + range_text(field.range) + optional, unset, field.help};
}

}  // namespace

std::string config_schema(AnyConfig defaults) {
  Json schema = {{"$schema", "http://json-schema.org/draft-07/schema#"}};
  schema.update(record_schema(*defaults.type, defaults.value));
  const Json path = {{"type", "string"}};
  schema["properties"]["include"] = {
      {"anyOf", {path, {{"type", "array"}, {"items", path}}}},
      {"description", "files read first, relative to this one, whose keys this file overrides"}};
  return schema.dump(2) + "\n";
}

std::string config_help(AnyConfig defaults) {
  std::vector<Row> rows = {{"key", "type", "default", "meaning"}};
  for_each_key(*defaults.type, defaults.value,
               [&](const std::string& key, const Field& field) { rows.push_back(help_row(key, field)); });
  std::array<size_t, 3> widths{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < widths.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    text += fmt::format("{:{}}  {:{}}  {:{}}  {}\n", row[0], widths[0], row[1], widths[1], row[2], widths[2],
                        row[3]);
  }
  return text;
}

}  // namespace ziggurat
