// Structs back to text: YAML, and the list of differences between two configs.
#include <algorithm>
#include <unordered_map>

#include <fmt/format.h>

#include "config/node.h"
#include "config/value.h"
#include <ziggurat/config/config.h>

namespace ziggurat {
namespace {

FieldList fields_of(const TypeInfo& type, void* value) {
  FieldList list;
  type.fields(value, list);
  return list;
}

bool is_record_list(const Field& field) {
  return field.type->kind == ValueKind::list && field.type->element->kind == ValueKind::record;
}

// ---- differences ----------------------------------------------------------------------------------------

struct Entry {
  std::string key, text;
};

void visit_below(const Field& field, const std::string& path, const ValueVisitor& visit) {
  if (field.type->kind == ValueKind::record) {
    const FieldList list = fields_of(*field.type, field.value);
    for (const Field& inner : list.fields()) visit_below(inner, join_key(path, inner.name), visit);
  } else if (is_record_list(field) && field.type->size(field.value) > 0) {
    for (size_t i = 0; i < field.type->size(field.value); ++i)
      visit_below(element_field(field, i), join_key(path, fmt::format("{}", i)), visit);
  } else {
    visit(path, field);
  }
}

void flatten(const Field& field, std::vector<Entry>& out) {
  visit_below(field, "", [&](const std::string& key, const Field& value) {
    out.push_back({key, value_text(value)});
  });
}

Field whole(AnyConfig config) { return {.name = "", .help = "", .type = config.type, .value = config.value}; }

bool same(const Field& a, const Field& b) {
  std::vector<Entry> in_a, in_b;
  flatten(a, in_a);
  flatten(b, in_b);
  return std::equal(in_a.begin(), in_a.end(), in_b.begin(), in_b.end(),
                    [](const Entry& x, const Entry& y) { return x.key == y.key && x.text == y.text; });
}

// ---- YAML -----------------------------------------------------------------------------------------------

class Dumper {
 public:
  explicit Dumper(DumpMode mode) : mode_(mode) {}

  std::string take() { return std::move(text_); }

  void dump_record(AnyConfig config, const std::string& indent) {
    const std::shared_ptr<void> defaults = config.type->make();
    const FieldList list = fields_of(*config.type, config.value);
    const FieldList default_list = fields_of(*config.type, defaults.get());
    for (size_t i = 0; i < list.fields().size(); ++i) {
      dump_field(list.fields()[i], default_list.fields()[i], indent);
    }
  }

 private:
  // `default_field` is the same field of the enclosing struct as declared: its value may differ from what the
  // inner struct declares, so it is handed down rather than made anew.
  void dump_field(const Field& field, const Field& default_field, const std::string& indent) {
    if (mode_ == DumpMode::changed && same(field, default_field)) return;
    if (field.type->kind == ValueKind::record) {
      line(indent + field.name + ":", field.help);
      const FieldList list = fields_of(*field.type, field.value);
      const FieldList defaults = fields_of(*field.type, default_field.value);
      for (size_t i = 0; i < list.fields().size(); ++i) {
        dump_field(list.fields()[i], defaults.fields()[i], indent + "  ");
      }
    } else if (is_record_list(field) && field.type->size(field.value) > 0) {
      line(indent + field.name + ":", field.help);
      for (size_t i = 0; i < field.type->size(field.value); ++i) {
        dump_element({field.type->element, field.type->at(field.value, i)}, indent + "  ");
      }
    } else {
      const std::string value = field.type->is_scalar() ? scalar_text(field) : scalar_list_text(field);
      line(indent + field.name + ": " + value, field.help);
    }
  }

  // "- " takes the place of the first key's indentation.
  void dump_element(AnyConfig element, const std::string& indent) {
    const size_t start = text_.size();
    dump_record(element, indent + "  ");
    if (text_.size() == start) {
      text_ += indent + "- {}\n";
    } else {
      text_[start + indent.size()] = '-';
    }
  }

  void line(const std::string& content, const std::string& help) {
    text_ += fmt::format("{}  # {}\n", content, help);
  }

  DumpMode mode_;
  std::string text_;
};

}  // namespace

std::string dump_config(AnyConfig config, DumpMode mode) {
  Dumper dumper(mode);
  dumper.dump_record(config, "");
  return dumper.take();
}

std::string value_text(const Field& field) {
  if (field.type->is_scalar()) return scalar_text(field);
  return is_record_list(field) ? "[]" : scalar_list_text(field);
}

void for_each_value(AnyConfig config, const ValueVisitor& visit) { visit_below(whole(config), "", visit); }

std::vector<ConfigDifference> config_diff(AnyConfig before, AnyConfig after) {
  constexpr const char* kAbsent = "(absent)";
  std::vector<Entry> old_entries, new_entries;
  flatten(whole(before), old_entries);
  flatten(whole(after), new_entries);
  const auto by_key = [](const std::vector<Entry>& entries) {
    std::unordered_map<std::string_view, const Entry*> index;
    for (const Entry& entry : entries) index.emplace(entry.key, &entry);
    return index;
  };
  const auto old_by_key = by_key(old_entries), new_by_key = by_key(new_entries);
  std::vector<ConfigDifference> differences;
  for (const Entry& entry : old_entries) {
    const auto other = new_by_key.find(entry.key);
    const std::string now = other == new_by_key.end() ? kAbsent : other->second->text;
    if (now != entry.text) differences.push_back({entry.key, entry.text, now});
  }
  for (const Entry& entry : new_entries) {
    if (!old_by_key.contains(entry.key)) differences.push_back({entry.key, kAbsent, entry.text});
  }
  return differences;
}

}  // namespace ziggurat
