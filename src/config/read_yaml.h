// YAML text and files to a tree of nodes. Nothing here knows what keys exist.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "config/node.h"
#include <ziggurat/config/problems.h>

namespace ziggurat {

constexpr size_t kMaxFileBytes = 1 << 20;

// One YAML document; an empty one is an empty map where `source` is a file, nothing where it is an override.
// What is refused (see config.h) goes to `problems`; the node is `refused` when the text can't be read.
enum class YamlSource { file, override_value };
Node read_yaml(std::string_view text, const std::string& source, YamlSource kind, Problems& problems);

// `root` with its `include` key replaced by what it includes, recursively. `path` of the file it came from.
Node resolve_includes(Node root, const std::string& path, Problems& problems);

// The file with all that it includes; `refused` when one of them can't be read.
Node read_yaml_file(const std::string& path, Problems& problems);

// Each "a.b.0.c=value" written over the tree, later ones over earlier ones.
void apply_overrides(Node& root, std::span<const std::string> overrides, Problems& problems);

}  // namespace ziggurat
