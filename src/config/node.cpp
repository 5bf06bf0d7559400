#include "config/node.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include <fmt/format.h>

namespace ziggurat {
namespace {

constexpr size_t kLongestShown = 60;  // characters of a wrong value in a message
constexpr size_t kLongestWord = 64;   // beyond this, no key was meant

// Damerau-Levenshtein (adjacent swaps count once, as in "wramup"), restricted form.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before_last(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  std::iota(last.begin(), last.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    before_last.swap(last);
    last.swap(row);
  }
  return last[b.size()];
}

}  // namespace

std::string Place::text() const {
  if (!source) return "";
  return line == 0 ? *source : fmt::format("{}:{}:{}", *source, line, column);
}

Node* Node::find(std::string_view name) {
  if (!has_keys()) return nullptr;
  const auto found =
      std::find_if(items.begin(), items.end(), [&](const Node& item) { return item.key == name; });
  return found == items.end() ? nullptr : &*found;
}

void Node::cover(const Node& old) {
  if (old.kind == NodeKind::path) return;  // nothing that anybody wrote
  covered = old.covered;
  covered.insert(covered.begin(), old.place);
}

std::string join_key(std::string_view path, std::string_view key) {
  return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
}

std::string in_quotes(std::string_view text) {
  std::string shown(text.substr(0, kLongestShown));
  if (shown.size() < text.size()) {
    // Never cut a UTF-8 sequence in two.
    size_t end = shown.size();
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    shown.resize(end);
    shown += "...";
  }
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return fmt::format("'{}'", shown);
}

std::string description(const Node& node) {
  switch (node.kind) {
    case NodeKind::scalar:
      return in_quotes(node.text);
    case NodeKind::list:
      return "a list";
    case NodeKind::map:
      return "a map of keys";
    case NodeKind::path:
      return fmt::format("the key {} below it", in_quotes(node.items.empty() ? "" : node.items.front().key));
    default:
      return "nothing";
  }
}

int64_t as_index(std::string_view key) {
  int64_t index = -1;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), index);
  const bool canonical = error == std::errc{} && end == key.data() + key.size() && index >= 0 &&
                         (key == "0" || key.front() != '0');
  return canonical ? index : -1;
}

namespace {

// Down from `root` along `path` as far as nodes were written; what is left of it.
const Node* follow(const Node& root, std::string_view& path) {
  const Node* node = &root;
  while (!path.empty()) {
    const size_t dot = std::min(path.find('.'), path.size());
    const std::string_view part = path.substr(0, dot);
    const Node* next = node->find(part);
    if (node->kind == NodeKind::list) {
      const int64_t index = as_index(part);
      if (index >= 0 && index < static_cast<int64_t>(node->items.size()))
        next = &node->items[static_cast<size_t>(index)];
    }
    if (next == nullptr) break;
    node = next;
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return node;
}

}  // namespace

const Node* find_node(const Node& root, std::string_view path) {
  const Node* node = follow(root, path);
  return path.empty() ? node : nullptr;
}

const Node& nearest_node(const Node& root, std::string_view path) { return *follow(root, path); }

std::string nearest_word(std::string_view word, const std::vector<std::string>& candidates) {
  if (word.empty() || word.size() > kLongestWord) return "";
  std::string best;
  // A third of the letters may be wrong, one in any word of two letters or more.
  size_t limit = word.size() < 2 ? 0 : std::max<size_t>(1, word.size() / 3);
  for (const std::string& candidate : candidates) {
    if (candidate.size() > word.size() + limit || candidate.size() + limit < word.size()) continue;
    const size_t distance = edit_distance(word, candidate);
    if (distance <= limit && distance < candidate.size()) {
      best = candidate;
      if (distance == 0) break;
      limit = distance - 1;
    }
  }
  return best;
}

}  // namespace ziggurat
