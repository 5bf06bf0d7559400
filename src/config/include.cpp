// Files, what they include, and overrides: all become one tree that still knows where each value was written.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>

#include "config/read_yaml.h"

namespace ziggurat {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxFiles = 100;  // in all: bounds files that include each other twice and twice again

// What a file of that folder is called that somebody may have meant, as a question; may be "".
std::string file_beside(const std::string& path) {
  const fs::path folder = fs::path(path).has_parent_path() ? fs::path(path).parent_path() : ".";
  std::vector<std::string> names;
  std::error_code ignored;
  for (fs::directory_iterator entry(folder, ignored), end; !ignored && entry != end;
       entry.increment(ignored)) {
    if (entry->path().extension() == ".yaml") names.push_back(entry->path().filename().string());
  }
  const std::string near = nearest_word(fs::path(path).filename().string(), names);
  return near.empty() ? "" : fmt::format("; did you mean '{}'?", near);
}

// The bytes of a file, one more than allowed at most; `why` says why there are none.
std::string read_bytes(const std::string& path, std::string& why) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    why = "a directory; name a YAML file in it";
    return "";
  }
  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  std::string bytes(kMaxFileBytes + 1, '\0');
  stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!stream.eof() && stream.fail()) {
    why = (errno != 0 ? std::strerror(errno) : "a read error") + file_beside(path);
    return "";
  }
  bytes.resize(static_cast<size_t>(stream.gcount()));
  return bytes;
}

// Maps merge key by key; anything else replaces.
void merge(Node& base, Node&& over) {
  if (over.kind == NodeKind::refused) return;
  if (base.kind != NodeKind::map || over.kind != NodeKind::map) {
    over.cover(base);
    base = std::move(over);
    return;
  }
  base.place = over.place;
  for (Node& item : over.items) {
    if (Node* old = base.find(item.key)) {
      merge(*old, std::move(item));
    } else {
      base.items.push_back(std::move(item));
    }
  }
}

// A file that can't be read makes everything that includes it unreadable too: else each of its keys would be
// reported as missing.
const Node kRefused{.kind = NodeKind::refused};

class Includer {
 public:
  explicit Includer(Problems& problems) : problems_(problems) {}

  Node read_file(const std::string& path, const Place& from) {
    std::string why;
    const std::string bytes = read_bytes(path, why);
    if (!why.empty()) {
      problems_.add_line(from.source
                             ? fmt::format("{}: include: expected a readable file, got {}: {}; a path "
                                           "counts from the folder of the file that includes it",
                                           from.text(), in_quotes(path), why)
                             : fmt::format("{}: expected a readable file, got: {}", path, why));
      return kRefused;
    }
    return resolve(read_yaml(bytes, path, YamlSource::file, problems_), path);
  }

  Node resolve(Node root, const std::string& path) {
    const Node* include = root.find("include");
    if (include == nullptr) return root;
    open_.push_back(path);
    Node merged{.kind = NodeKind::map, .place = root.place};
    bool complete = true;
    for (const Node& name : names(*include)) {
      Node included = include_one(name, path);
      complete = complete && included.kind != NodeKind::refused;
      merge(merged, std::move(included));
    }
    open_.pop_back();
    std::erase_if(root.items, [](const Node& item) { return item.key == "include"; });
    merge(merged, std::move(root));
    if (!complete) merged.kind = NodeKind::refused;
    return merged;
  }

 private:
  std::vector<Node> names(const Node& include) {
    std::vector<Node> names;
    if (include.kind == NodeKind::scalar) names = {include};
    if (include.kind == NodeKind::list) names = include.items;
    const bool ok = !names.empty() && std::all_of(names.begin(), names.end(), [](const Node& name) {
      return name.kind == NodeKind::scalar && !name.text.empty();
    });
    if (ok) return names;
    if (include.kind != NodeKind::refused) {
      problems_.add_line(fmt::format("{}: include: expected a path or a list of paths, got {}",
                                     include.place.text(), description(include)));
    }
    return {};
  }

  Node include_one(const Node& name, const std::string& from) {
    const std::string path = (fs::path(from).parent_path() / name.text).lexically_normal().string();
    for (size_t i = 0; i < open_.size(); ++i) {
      std::error_code ignored;
      if (fs::equivalent(open_[i], path, ignored)) {
        std::string cycle;
        for (size_t j = i; j < open_.size(); ++j) cycle += open_[j] + " -> ";
        problems_.add_line(
            fmt::format("{}: include: expected no cycle, got {}{}", name.place.text(), cycle, path));
        return kRefused;
      }
    }
    if (++files_ > kMaxFiles) {
      if (files_ == kMaxFiles + 1) {
        problems_.add_line(fmt::format("{}: include: expected at most {} files in all, got more",
                                       name.place.text(), kMaxFiles));
      }
      return kRefused;
    }
    Node node = read_file(path, name.place);
    if (node.kind == NodeKind::map) return node;
    if (node.kind != NodeKind::refused) {
      problems_.add_line(
          fmt::format("{}: expected a map of keys, got {}", node.place.text(), description(node)));
    }
    return kRefused;
  }

  Problems& problems_;
  std::vector<std::string> open_;  // files being read, outermost first
  int files_ = 0;
};

std::vector<std::string> split(std::string_view path) {
  std::vector<std::string> parts;
  while (true) {
    const size_t dot = std::min(path.find('.'), path.size());
    parts.emplace_back(path.substr(0, dot));
    if (dot == path.size()) return parts;
    path.remove_prefix(dot + 1);
  }
}

// The child of `node` called `part`, made when nobody wrote it; nullptr when a list has no such element.
Node* descend(Node& node, const std::string& part, const Place& place) {
  if (node.kind == NodeKind::list) {
    const int64_t index = as_index(part);
    const bool inside = index >= 0 && index < static_cast<int64_t>(node.items.size());
    return inside ? &node.items[static_cast<size_t>(index)] : nullptr;
  }
  if (!node.has_keys()) {
    // Whatever stood here is covered by the new key; its type is judged when the field is known.
    node.kind = NodeKind::path;
    node.place = place;
    node.items.clear();
  }
  if (Node* child = node.find(part)) return child;
  node.items.push_back({.kind = NodeKind::path, .place = place, .key = part, .key_place = place});
  return &node.items.back();
}

}  // namespace

Node resolve_includes(Node root, const std::string& path, Problems& problems) {
  return Includer(problems).resolve(std::move(root), path);
}

Node read_yaml_file(const std::string& path, Problems& problems) {
  return Includer(problems).read_file(path, {});
}

void apply_overrides(Node& root, std::span<const std::string> overrides, Problems& problems) {
  constexpr size_t kMaxParts = 64;
  for (const std::string& text : overrides) {
    const std::string source = "override " + in_quotes(text);
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      problems.add_line(source + ": expected key=value, got no " + (equals == 0 ? "key" : "'='"));
      continue;
    }
    const std::string path = text.substr(0, equals);
    Node value =
        read_yaml(std::string_view(text).substr(equals + 1), source, YamlSource::override_value, problems);
    const std::vector<std::string> parts = split(path);
    if (parts.size() > kMaxParts) {
      problems.add_line(
          fmt::format("{}: expected at most {} levels, got {}", source, kMaxParts, parts.size()));
      continue;
    }
    const Place place{std::make_shared<const std::string>(source), 0, 0};
    Node* node = &root;
    std::string reached;
    for (const std::string& part : parts) {
      Node* next = descend(*node, part, place);
      reached = join_key(reached, part);
      if (next == nullptr) {
        problems.add_line(fmt::format("{}: {}: expected an index below {}, got {}", source, reached,
                                      node->items.size(), in_quotes(part)));
      }
      node = next;
      if (node == nullptr) break;
    }
    if (node == nullptr) continue;
    value.key = node->key;
    value.key_place = place;
    value.place = place;
    value.cover(*node);
    *node = std::move(value);
  }
}

}  // namespace ziggurat
