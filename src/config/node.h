// A config as it was written: the tree of keys and texts, each with its place, before any type is known.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ziggurat {

// Where something was written: a line of a file, or an override (line 0).
struct Place {
  std::shared_ptr<const std::string> source = {};
  int line = 0, column = 0;  // 1-based

  std::string text() const;
};

enum class NodeKind {
  null,
  scalar,
  list,
  map,
  path,     // keys below which an override set something: stands for a map, or for indices of a list
  refused,  // already reported; means nothing
};

struct Node {
  NodeKind kind = NodeKind::null;
  std::string text = {};  // scalar
  Place place = {};
  std::string key = {};             // when it is an entry of a map
  Place key_place = {};             // idem
  std::vector<Node> items = {};     // of a list, map or path; keys are unique in a map that passed the reader
  std::vector<Place> covered = {};  // of values that this one replaced, newest first

  void cover(const Node& old);

  Node* find(std::string_view name);
  const Node* find(std::string_view name) const { return const_cast<Node*>(this)->find(name); }
  bool has_keys() const { return kind == NodeKind::map || kind == NodeKind::path; }
};

std::string join_key(std::string_view path, std::string_view key);

// For messages: at most 60 characters, control characters shown as '?', in single quotes.
std::string in_quotes(std::string_view text);

// What a user sees of a value: 'text', a list, a map of keys, nothing.
std::string description(const Node& node);

// `key` as an index of a list: decimal digits without a leading zero; -1 when it is none.
int64_t as_index(std::string_view key);

// The node at `path`; nullptr when nobody wrote it.
const Node* find_node(const Node& root, std::string_view path);

// The deepest node on the way to `path` that somebody wrote; the root when there is none.
const Node& nearest_node(const Node& root, std::string_view path);

// The candidate nearest to `word` by edit distance, when it is near enough to be what was meant; else "".
std::string nearest_word(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace ziggurat
