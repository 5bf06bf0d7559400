// yaml-cpp is used for its syntax only, as a stream of events: its own tree would follow aliases, keep
// duplicate keys silently and recurse as deep as the file says.
#include "config/read_yaml.h"

#include <algorithm>
#include <sstream>

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

namespace ziggurat {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxNodes = 100'000;
constexpr size_t kMaxKeys = 1000;  // in one map

// Reading can't go on.
struct Stop {};

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(std::shared_ptr<const std::string> source, YamlSource kind, Problems& problems)
      : source_(std::move(source)), kind_(kind), problems_(problems) {}

  Node take_root() { return std::move(root_); }
  Place place(const YAML::Mark& mark) const {
    if (kind_ == YamlSource::override_value || mark.is_null()) return {source_, 0, 0};
    return {source_, mark.line + 1, mark.column + 1};
  }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) stop(place(mark), "expected one YAML document, got a second one");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_extras(mark, "", anchor);
    insert({.kind = NodeKind::null, .place = place(mark)});
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    report(place(mark), "expected a value, got an alias (*name): write the value out");
    insert({.kind = NodeKind::refused, .place = place(mark)});
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_extras(mark, tag, anchor);
    insert({.kind = NodeKind::scalar, .text = value, .place = place(mark)});
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, NodeKind::list);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, NodeKind::map);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Level {
    Node node;
    bool has_key = false;  // a map whose next event is the value of `key`
    std::string key = {};
    Place key_place = {};
  };

  std::string path() const {
    std::string path;
    for (const Level& level : levels_) {
      if (level.node.kind == NodeKind::list) {
        path = join_key(path, fmt::format("{}", level.node.items.size()));
      } else if (level.has_key) {
        path = join_key(path, level.key);
      }
    }
    return path;
  }

  void report(const Place& where, std::string_view message) {
    const std::string key = path();
    problems_.add_line(fmt::format("{}: {}{}{}", where.text(), key, key.empty() ? "" : ": ", message));
  }
  [[noreturn]] void stop(const Place& where, std::string_view message) {
    report(where, message);
    throw Stop{};
  }

  void refuse_extras(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) report(place(mark), "expected a value, got an anchor (&name): write each value out");
    if (!tag.empty() && tag != "?" && tag != "!") {
      report(place(mark), fmt::format("expected a value without a tag, got {}", in_quotes(tag)));
    }
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, NodeKind kind) {
    refuse_extras(mark, tag, anchor);
    if (levels_.size() >= kMaxDepth) {
      stop(place(mark), fmt::format("expected at most {} levels of nesting, got more", kMaxDepth));
    }
    if (!levels_.empty() && levels_.back().node.kind == NodeKind::map && !levels_.back().has_key) {
      stop(place(mark), "expected a text as key, got a list or a map (is a bracket left open?)");
    }
    levels_.push_back({.node = {.kind = kind, .place = place(mark)}});
  }

  void close() {
    Node node = std::move(levels_.back().node);
    levels_.pop_back();
    insert(std::move(node));
  }

  // A finished value goes to the list or map around it; in a map every second one is a key.
  void insert(Node node) {
    if (++nodes_ > kMaxNodes)
      stop(node.place, fmt::format("expected at most {} values, got more", kMaxNodes));
    if (levels_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == NodeKind::map && !level.has_key) {
      if (node.kind != NodeKind::scalar) stop(node.place, "expected a text as key, got " + description(node));
      level.key = std::move(node.text);
      level.key_place = node.place;
      level.has_key = true;
      return;
    }
    if (level.node.kind == NodeKind::map) add_entry(level, node);
    level.node.items.push_back(std::move(node));
    level.has_key = false;
  }

  void add_entry(Level& level, Node& node) {
    if (level.node.items.size() >= kMaxKeys) {
      stop(level.key_place, fmt::format("expected at most {} keys in a map, got more", kMaxKeys));
    }
    if (const Node* first = level.node.find(level.key)) {
      report(level.key_place, fmt::format("expected each key once, got it again; it was first set at {}",
                                          first->key_place.text()));
      node.kind = NodeKind::refused;
    }
    node.key = std::move(level.key);
    node.key_place = level.key_place;
    // yaml-cpp places a missing value on whatever comes after it.
    if (node.kind == NodeKind::null) node.place = node.key_place;
  }

  std::shared_ptr<const std::string> source_;
  YamlSource kind_;
  Problems& problems_;
  Node root_;
  std::vector<Level> levels_;
  size_t nodes_ = 0;
  int documents_ = 0;
};

// Length of the valid UTF-8 sequence (RFC 3629) that `text` starts with; 0 when there is none.
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto follows = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const unsigned b0 = byte(0), b1 = byte(1);
  if (b0 < 0x80) return 1;
  if (b0 >= 0xc2 && b0 < 0xe0) return follows(1) ? 2 : 0;
  if (b0 >= 0xe0 && b0 < 0xf0) {
    const bool ok = follows(1) && follows(2) && !(b0 == 0xe0 && b1 < 0xa0) && !(b0 == 0xed && b1 >= 0xa0);
    return ok ? 3 : 0;
  }
  if (b0 >= 0xf0 && b0 < 0xf5) {
    const bool ok =
        follows(1) && follows(2) && follows(3) && !(b0 == 0xf0 && b1 < 0x90) && !(b0 == 0xf4 && b1 >= 0x90);
    return ok ? 4 : 0;
  }
  return 0;
}

// The text without byte order mark and with '\n' as its only line end. False when it isn't text.
bool clean_text(std::string_view text, const Place& source, std::string& out, Problems& problems) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  int line = 1, column = 1;
  size_t brackets = 0;
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const size_t length = utf8_length(text.substr(i));
    const bool control = (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f;
    if (length == 0 || control) {
      const Place where{source.source, source.line == 0 ? 0 : line, column};
      problems.add_line(
          fmt::format("{}: expected a text file in UTF-8, got the byte 0x{:02x}", where.text(), c));
      return false;
    }
    brackets += c == '[' || c == '{';
    if (c == '\r') {
      if (text.substr(i + 1, 1) != "\n") out += '\n';
    } else {
      out += text.substr(i, length);
    }
    column = c == '\n' ? 1 : column + 1;
    line += c == '\n';
    i += length;
  }
  // yaml-cpp scans ahead over all that are open before it reports the first, so depth alone bounds no time.
  if (brackets > kMaxNodes) {
    problems.add_line(
        fmt::format("{}: expected at most {} brackets, got {}", source.text(), kMaxNodes, brackets));
    return false;
  }
  return true;
}

// The mistakes that people make, by what yaml-cpp calls them.
std::string cure_of(const YAML::Exception& error, const std::string& text) {
  size_t begin = 0;
  for (int line = 0; line < error.mark.line && begin != text.npos; ++line) {
    begin = text.find('\n', begin);
    if (begin != text.npos) ++begin;
  }
  const size_t word = begin == text.npos ? text.npos : text.find_first_not_of(" \t", begin);
  if (word != text.npos && text.substr(begin, word - begin).find('\t') != text.npos) {
    return "; the line begins with a tab: indent with spaces";
  }
  const std::string& what = error.msg;
  if (what.find("flow not found") != what.npos || what.find("end of map") != what.npos) {
    return "; is a bracket left open?";
  }
  if (what.find("EOF in scalar") != what.npos) return "; is a quote left open?";
  if (what.find("illegal map value") != what.npos) {
    return "; keys of one map begin in one column, and a text with ': ' in it stands in quotes";
  }
  return "";
}

}  // namespace

Node read_yaml(std::string_view text, const std::string& source, YamlSource kind, Problems& problems) {
  const auto shared = std::make_shared<const std::string>(source);
  const bool file = kind == YamlSource::file;
  const Place start{shared, file ? 1 : 0, file ? 1 : 0};
  const Node nothing{.kind = NodeKind::refused, .place = start};
  if (text.size() > kMaxFileBytes) {
    problems.add_line(fmt::format("{}: expected a config of at most 1 MiB, got a larger one", source));
    return nothing;
  }
  std::string clean;
  if (!clean_text(text, start, clean, problems)) return nothing;
  TreeBuilder builder(shared, kind, problems);
  try {
    std::istringstream stream(clean);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Stop&) {
    return nothing;
  } catch (const YAML::Exception& e) {
    problems.add_line(fmt::format("{}: expected valid YAML, got an error: {}{}", builder.place(e.mark).text(),
                                  e.msg, cure_of(e, clean)));
    return nothing;
  }
  Node root = builder.take_root();
  if (!root.place.source) root.place = start;
  if (file && root.kind == NodeKind::null) root.kind = NodeKind::map;
  return root;
}

}  // namespace ziggurat
