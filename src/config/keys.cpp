#include "config/keys.h"

#include <algorithm>

#include "config/node.h"
#include "config/other_names.h"
#include <ziggurat/config/explain.h>

namespace ziggurat {
namespace {

struct KnownKey {
  std::string path, name, help;
};

std::vector<KnownKey> known_keys(const TypeInfo& root) {
  const std::shared_ptr<void> object = root.make();
  std::vector<KnownKey> keys;
  for_each_key(root, object.get(), [&](const std::string& key, const Field& field) {
    keys.push_back({key, field.name, field.help});
  });
  return keys;
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  bool inside = false;
  for (const char c : text) {
    if (is_letter(c)) {
      if (!inside) words.emplace_back();
      words.back() += c;
    }
    inside = is_letter(c);
  }
  return words;
}

// "peak learning rate", by two: peak_learning, learning_rate.
std::vector<std::string> phrases(const std::string& help, size_t length) {
  const std::vector<std::string> words = words_of(help);
  std::vector<std::string> found;
  for (size_t i = 0; i + length <= words.size(); ++i) {
    std::string phrase = words[i];
    for (size_t j = 1; j < length; ++j) phrase += '_' + words[i + j];
    found.push_back(std::move(phrase));
  }
  return found;
}

// What a key may be called, beside the key.
class Candidates {
 public:
  void add(std::string word, const KnownKey& key) {
    words_.push_back(std::move(word));
    keys_.push_back(&key);
  }
  // The path of the nearest one's key. Where several say the same word, the one that says least else means
  // it: "peak learning rate" rather than "learning rate after the warm-up".
  std::string nearest(std::string_view word) const {
    const std::string best = nearest_word(word, words_);
    const KnownKey* meant = nullptr;
    for (size_t i = 0; i < words_.size() && !best.empty(); ++i) {
      if (words_[i] == best && (meant == nullptr || keys_[i]->help.size() < meant->help.size()))
        meant = keys_[i];
    }
    return meant == nullptr ? "" : meant->path;
  }

 private:
  std::vector<std::string> words_;
  std::vector<const KnownKey*> keys_;
};

}  // namespace

void for_each_key(const TypeInfo& type, void* value, const KeyVisitor& visit) {
  FieldList list;
  type.fields(value, list);
  for (const Field& field : list.fields()) {
    visit(field.name, field);
    const auto below = [&](const TypeInfo& inner, void* object, const std::string& prefix) {
      for_each_key(inner, object,
                   [&](const std::string& key, const Field& f) { visit(join_key(prefix, key), f); });
    };
    if (field.type->kind == ValueKind::record) below(*field.type, field.value, field.name);
    if (field.type->kind == ValueKind::list && field.type->element->kind == ValueKind::record) {
      const std::shared_ptr<void> element = field.type->element->make();
      below(*field.type->element, element.get(), field.name + ".N");
    }
  }
}

std::string nearest_key(const TypeInfo& root, std::string_view path, const std::string& name) {
  const std::string parent = key_in_lists(path);
  const std::vector<KnownKey> keys = known_keys(root);
  const auto known = [&](std::string_view key) {
    return std::any_of(keys.begin(), keys.end(), [&](const KnownKey& one) { return one.path == key; });
  };
  const auto beside = [&](const KnownKey& key) { return key.path == join_key(parent, key.name); };

  for (const OtherName& other : other_names()) {
    if (other.theirs == name && known(other.ours)) return std::string(other.ours);
  }
  std::vector<std::string> siblings;
  for (const KnownKey& key : keys) {
    if (beside(key)) siblings.push_back(key.name);
  }
  if (const std::string sibling = nearest_word(name, siblings); !sibling.empty())
    return join_key(path, sibling);
  for (const KnownKey& key : keys) {
    if (key.name == name) return key.path;
  }
  const auto parts = static_cast<size_t>(std::count(name.begin(), name.end(), '_')) + 1;
  Candidates words;
  for (const KnownKey& key : keys) words.add(key.path, key);
  for (const KnownKey& key : keys) words.add(key.name, key);
  for (const KnownKey& key : keys) {
    if (parts < 2) break;  // any single word stands in some help
    for (std::string& phrase : phrases(key.help, parts)) words.add(std::move(phrase), key);
  }
  const std::string elsewhere = words.nearest(name);
  const bool stray = !parent.empty() && !known(parent);  // nor is the struct one of the config
  return elsewhere.empty() && stray ? words.nearest(join_key(path, name)) : elsewhere;
}

}  // namespace ziggurat
