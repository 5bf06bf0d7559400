// What the field lists say of one key.
#include <fmt/format.h>

#include "config/keys.h"
#include "config/node.h"
#include "config/value.h"
#include <ziggurat/config/explain.h>
#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

const char* unit_text(Unit unit) {
  switch (unit) {
    case Unit::none:
      return "";
    case Unit::tokens:
      return "tokens; K, M, B, T are powers of 1000 (300B)";
    case Unit::samples:
      return "samples (sequences); K, M, B are powers of 1000";
    case Unit::steps:
      return "optimizer steps; K, M, B are powers of 1000";
    case Unit::count:
      return "a count; K, M, B are powers of 1000";
    case Unit::bytes:
      return "bytes; KB, MB, GB are powers of 1000, KiB, MiB, GiB of 1024";
    case Unit::seconds:
      return "a duration: 90m, 1h30m, 6d; a bare number is seconds";
  }
  return "";
}

std::string line(const char* what, const std::string& text) {
  return text.empty() ? "" : fmt::format("  {:<9} {}\n", what, text);
}

std::string described(const std::string& key, const Field& field) {
  std::string text = fmt::format("{}\n  {}\n", key, field.help);
  if (field.type->kind == ValueKind::record) return text;
  text += line("type", type_text(field) + (field.type->optional ? " or null" : ""));
  text += line("unit", unit_text(field.unit));
  const std::string range = range_text(field.range);
  text += line("range", range.empty() ? "" : range.substr(1));
  // A default outside the range stands for: must be set.
  const bool scalar = field.type->is_scalar();
  const bool required = scalar ? !in_range(field, field.type->get(field.value))
                               : field.not_empty && field.type->size(field.value) == 0;
  const bool records = !scalar && field.type->element->kind == ValueKind::record;
  text += line("default", required  ? "none: it must be set"
                          : scalar  ? scalar_text(field)
                          : records ? fmt::format("{} of them", field.type->size(field.value))
                                    : scalar_list_text(field));
  return text;
}

}  // namespace

std::string key_in_lists(std::string_view key) {
  std::string out;
  while (!key.empty()) {
    const std::string_view part = key.substr(0, key.find('.'));
    out = join_key(out, as_index(part) >= 0 ? "N" : part);
    key.remove_prefix(std::min(part.size() + 1, key.size()));
  }
  return out;
}

std::string key_help(AnyConfig defaults, const std::string& key) {
  const std::string wanted = key_in_lists(key);
  std::string text, inside;
  for_each_key(*defaults.type, defaults.value, [&](const std::string& known, const Field& field) {
    if (known == wanted) text = described(known, field);
    if (known.starts_with(wanted + ".")) inside += fmt::format("  {:<36} {}\n", known, field.help);
  });
  if (text.empty()) {
    const size_t dot = wanted.rfind('.');
    const bool nested = dot != std::string::npos;
    const std::string parent = nested ? wanted.substr(0, dot) : "";
    const std::string near = nearest_key(*defaults.type, parent, nested ? wanted.substr(dot + 1) : wanted);
    fail(ErrorKind::config, "expected a key of the config, got {}; {}", in_quotes(key),
         near.empty() ? "`ziggurat config help` lists all" : fmt::format("did you mean '{}'?", near));
  }
  return inside.empty() ? text : text + "in it\n" + inside;
}

}  // namespace ziggurat
