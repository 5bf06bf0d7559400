// YAML files and key=value overrides to plain structs and back (how a struct lists its fields: fields.h).
//
// A file may start from others: the top-level key `include: path` (or a list of paths, relative to the file)
// reads them first, in order; the including file then overrides them key by key: maps merge, all else
// replaces. Overrides come last: "optimizer.lr=1e-4", "blocks.0.repeat=2", "blocks=[{ffn: dense}]"; the value
// is YAML.
//
// Refused: unknown and duplicate keys, anchors, aliases, tags, several documents, text that is not UTF-8,
// files above 1 MiB, nesting below 64 levels, include cycles. Every problem is one line of a single
// Error(config):
//   train.yaml:3:5: optimizer.lr: expected a number above 0, got 'fast'
//   override 'optimizer.lrr=1': optimizer.lrr: expected a known key, got 'lrr'; did you mean 'lr'?
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ziggurat/config/fields.h>
#include <ziggurat/config/units.h>

namespace ziggurat {

struct ConfigDifference {
  std::string key;            // full path: optimizer.lr, blocks.0.ffn
  std::string before, after;  // as dump writes them; "(absent)" for elements that only the other side has
};

enum class DumpMode {
  full,     // every value
  changed,  // only values that differ from the defaults
};

// A struct with its type forgotten: what the compiled half of this room works on.
struct AnyConfig {
  const TypeInfo* type;
  void* value;
};

void load_config(AnyConfig out, const std::string& path, std::span<const std::string> overrides);
void parse_config(AnyConfig out, std::string_view yaml, const std::string& source,
                  std::span<const std::string> overrides);
void check_config(AnyConfig config);
std::string dump_config(AnyConfig config, DumpMode mode);
std::string config_schema(AnyConfig defaults);
std::string config_help(AnyConfig defaults);
std::vector<ConfigDifference> config_diff(AnyConfig before, AnyConfig after);
// Every value in the order of the field lists, with its full key: scalars, lists of scalars, and lists of
// structs that are empty. value_text() is what dump writes for such a value.
std::string value_text(const Field& field);
using ValueVisitor = std::function<void(const std::string& key, const Field& field)>;
void for_each_value(AnyConfig config, const ValueVisitor& visit);

// Reads `path`, then the overrides. Keys that nobody sets keep their value in `out`. When it throws, `out` is
// unchanged.
template <config_detail::Record T>
void load_config(T& out, const std::string& path, std::span<const std::string> overrides = {}) {
  T loaded = out;
  load_config(AnyConfig{&type_info<T>(), &loaded}, path, overrides);
  out = std::move(loaded);
}

// The same from a text. `source` stands for the file name in messages; includes are relative to its folder.
template <config_detail::Record T>
void parse_config(T& out, std::string_view yaml, const std::string& source = "config",
                  std::span<const std::string> overrides = {}) {
  T loaded = out;
  parse_config(AnyConfig{&type_info<T>(), &loaded}, yaml, source, overrides);
  out = std::move(loaded);
}

// Ranges and validate() of a struct that was filled in C++. Throws Error(config) like load_config.
template <config_detail::Record T>
void check_config(const T& config) {
  T copy = config;
  check_config(AnyConfig{&type_info<T>(), &copy});
}

// YAML with the help as trailing comments. Loads back to the same values (UTF-8 texts, finite numbers).
template <config_detail::Record T>
std::string dump_config(const T& config, DumpMode mode = DumpMode::full) {
  T copy = config;
  return dump_config(AnyConfig{&type_info<T>(), &copy}, mode);
}

// JSON schema, draft 7 (the newest that yaml-language-server, and so most editors, understands).
template <config_detail::Record T>
std::string config_schema() {
  T defaults{};
  return config_schema(AnyConfig{&type_info<T>(), &defaults});
}

// A table for the terminal: key, type, default, help.
template <config_detail::Record T>
std::string config_help() {
  T defaults{};
  return config_help(AnyConfig{&type_info<T>(), &defaults});
}

// Every key whose value differs, in the order of the field lists. Lists of scalars are compared whole.
template <config_detail::Record T>
std::vector<ConfigDifference> config_diff(const T& before, const T& after) {
  T a = before, b = after;
  return config_diff(AnyConfig{&type_info<T>(), &a}, AnyConfig{&type_info<T>(), &b});
}

template <config_detail::Record T>
void for_each_value(const T& config, const ValueVisitor& visit) {
  T copy = config;
  for_each_value(AnyConfig{&type_info<T>(), &copy}, visit);
}

}  // namespace ziggurat
