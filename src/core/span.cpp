#include <algorithm>
#include <string_view>

#include <ziggurat/core/error.h>
#include <ziggurat/core/span.h>

namespace ziggurat {

int Profile::find(const char* name) {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].parent == current_ && std::string_view(nodes_[i].name) == name) return static_cast<int>(i);
  }
  nodes_.push_back({name, current_});
  return static_cast<int>(nodes_.size()) - 1;
}

void Profile::charge() {
  if (current_ >= 0) nodes_[static_cast<size_t>(current_)].seconds += since_.seconds();
  since_.restart();
}

void Profile::enter(const char* name) {
  charge();
  current_ = find(name);
  ++nodes_[static_cast<size_t>(current_)].calls;
}

void Profile::leave() {
  check(current_ >= 0, ErrorKind::internal, "[profile] more spans left than entered");
  charge();
  current_ = nodes_[static_cast<size_t>(current_)].parent;
}

void Profile::reset() {
  check(current_ < 0, ErrorKind::internal, "[profile] reset inside a span");
  nodes_.clear();
}

std::vector<Profile::Entry> Profile::entries() const {
  std::vector<Entry> entries;
  for (const Node& node : nodes_) {
    std::string path = node.name;
    for (int p = node.parent; p >= 0; p = nodes_[static_cast<size_t>(p)].parent) {
      path = std::string(nodes_[static_cast<size_t>(p)].name) + "/" + path;
    }
    entries.push_back({std::move(path), node.seconds, node.calls});
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.seconds > b.seconds; });
  return entries;
}

}  // namespace ziggurat
