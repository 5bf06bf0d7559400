// The tree of what was written meets the structs: types, ranges, unknown keys, then validate().
#include <fmt/format.h>

#include "config/keys.h"
#include "config/node.h"
#include "config/read_yaml.h"
#include "config/value.h"
#include <ziggurat/config/config.h>
#include <ziggurat/config/explain.h>
#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

class Binder {
 public:
  // `root` is null when there is no text, only the values themselves.
  Binder(AnyConfig config, const Node* root, Problems& problems)
      : config_(config), root_(root), problems_(problems) {}

  void bind() {
    const Field top{.name = "", .help = "", .type = config_.type, .value = config_.value};
    if (root_ != nullptr && root_->kind != NodeKind::map) {
      mismatch(top, *root_, "");
    } else {
      bind_record(*config_.type, config_.value, root_, "");
    }
    // After all types are right: rules across fields would only repeat what was wrong inside one.
    for (const Validation& validation : validations_) {
      problems_.set_scope(validation.path);
      validation.type->validate(validation.value, problems_);
    }
  }

 private:
  struct Validation {
    const TypeInfo* type;
    const void* value;
    std::string path;
  };

  void report(const Node& node, const std::string& path, const std::string& message) {
    if (problems_.full()) return problems_.add_line("");
    const std::string place = node.place.text();
    problems_.add_line(
        fmt::format("{}{}{}{}{}", place, place.empty() ? "" : ": ", path, path.empty() ? "" : ": ", message));
  }

  void mismatch(const Field& field, const Node& node, const std::string& path, const std::string& note = "") {
    if (node.kind == NodeKind::refused) {
      ++refused_;
      return;
    }
    report(node, path, fmt::format("expected {}, got {}{}", expected_text(field), description(node), note));
  }

  // `node` is null for what nobody wrote: then the value in place is only checked.
  void bind_field(const Field& field, const Node* node, const std::string& path) {
    switch (field.type->kind) {
      case ValueKind::record:
        if (node != nullptr && !node->has_keys()) return mismatch(field, *node, path);
        return bind_record(*field.type, field.value, node, path);
      case ValueKind::list:
        return bind_list(field, node, path);
      default:
        return bind_scalar(field, node, path);
    }
  }

  void bind_record(const TypeInfo& type, void* value, const Node* node, const std::string& path) {
    const size_t before = problems_.count() + refused_;
    FieldList list;
    type.fields(value, list);
    if (node != nullptr) {
      for (const Node& item : node->items) {
        if (const Field* field = list.find(item.key)) {
          bind_field(*field, &item, join_key(path, item.key));
        } else {
          unknown_key(list, item, path);
        }
      }
    }
    for (const Field& field : list.fields()) {
      if (node == nullptr || node->find(field.name) == nullptr) {
        bind_field(field, nullptr, join_key(path, field.name));
      }
    }
    const bool clean = problems_.count() + refused_ == before;
    if (clean && type.validate != nullptr) validations_.push_back({&type, value, path});
  }

  void unknown_key(const FieldList& list, const Node& item, const std::string& path) {
    if (problems_.full()) return problems_.add_line("");
    std::vector<std::string> names;
    for (const Field& field : list.fields()) names.push_back(field.name);
    std::string near = nearest_key(*config_.type, path, item.key);
    for (const std::string& name : names) {
      if (near == join_key(path, name)) near = name;  // beside it
    }
    const std::string hint = near.empty() ? fmt::format("; valid keys: {}", fmt::join(names, ", "))
                                          : fmt::format("; did you mean '{}'?", near);
    Node at_key = item;
    at_key.place = item.key_place;
    const std::string shown = in_quotes(item.key);
    report(at_key, join_key(path, shown.substr(1, shown.size() - 2)),
           fmt::format("expected a known key, got {}{}", shown, hint));
  }

  void bind_list(const Field& field, const Node* node, const std::string& path) {
    if (node != nullptr && node->kind == NodeKind::list) {
      field.type->assign_defaults(field.value, node->items.size());
    } else if (node != nullptr && node->kind == NodeKind::path) {
      return bind_elements_by_index(field, *node, path);
    } else if (node != nullptr) {
      return mismatch(field, *node, path);
    }
    const size_t size = field.type->size(field.value);
    if (field.not_empty && size == 0) {
      if (node == nullptr) return missing(field, path);
      return report(*node, path, "expected a list that is not empty, got an empty one");
    }
    for (size_t i = 0; i < size; ++i) {
      const Field element = element_field(field, i);
      bind_field(element, node == nullptr ? nullptr : &node->items[i], join_key(path, element.name));
    }
  }

  // Overrides such as blocks.0.repeat=2 over a list that only the struct itself fills.
  void bind_elements_by_index(const Field& field, const Node& node, const std::string& path) {
    const size_t size = field.type->size(field.value);
    for (const Node& item : node.items) {
      const int64_t index = as_index(item.key);
      if (index < 0 || index >= static_cast<int64_t>(size)) {
        report(item, join_key(path, item.key),
               fmt::format("expected an index below {}, got {}", size, in_quotes(item.key)));
      }
    }
    for (size_t i = 0; i < size; ++i) {
      const Field element = element_field(field, i);
      bind_field(element, node.find(element.name), join_key(path, element.name));
    }
  }

  void bind_scalar(const Field& field, const Node* node, const std::string& path) {
    if (node == nullptr) {
      if (!in_range(field, field.type->get(field.value))) missing(field, path);
      return;
    }
    if (node->kind == NodeKind::null && field.type->optional) return field.type->set(field.value, Scalar());
    if (node->kind != NodeKind::scalar) {
      const bool empty_text = node->kind == NodeKind::null && field.type->kind == ValueKind::text;
      return mismatch(field, *node, path,
                      empty_text && !field.not_empty ? " (write \"\" for an empty text)" : "");
    }
    const ParsedScalar parsed = parse_scalar(field, node->text);
    if (!parsed.ok || !in_range(field, parsed.value)) return mismatch(field, *node, path, parsed.note);
    field.type->set(field.value, parsed.value);
  }

  void missing(const Field& field, const std::string& path) {
    problems_.set_scope("");
    const std::string got = field.type->is_scalar() ? scalar_text(field) : "[]";
    problems_.add(path, fmt::format("expected {}, got {}{}", expected_text(field), got,
                                    root_ == nullptr ? "" : " (not set)"));
  }

  AnyConfig config_;
  const Node* root_;
  Problems& problems_;
  std::vector<Validation> validations_;
  size_t refused_ = 0;  // values that the reader has reported already
};

Problems problems_placed_in(const Node& root) {
  return Problems([&root](std::string_view key) { return nearest_node(root, key).place.text(); });
}

void bind_tree(AnyConfig out, Node& root, std::span<const std::string> overrides, Problems& problems) {
  // A text that can't be read has no keys to judge.
  if (root.kind == NodeKind::refused) problems.throw_if_any();
  apply_overrides(root, overrides, problems);
  Binder(out, &root, problems).bind();
  problems.throw_if_any();
}

}  // namespace

void load_config(AnyConfig out, const std::string& path, std::span<const std::string> overrides) {
  Node root;
  Problems problems = problems_placed_in(root);
  root = read_yaml_file(path, problems);
  bind_tree(out, root, overrides, problems);
}

std::vector<ValueOrigin> explain_config(AnyConfig out, const std::string& path,
                                        std::span<const std::string> overrides) {
  Node root;
  Problems problems = problems_placed_in(root);
  root = read_yaml_file(path, problems);
  bind_tree(out, root, overrides, problems);
  std::vector<ValueOrigin> origins;
  for_each_value(out, [&](const std::string& key, const Field& field) {
    ValueOrigin& origin = origins.emplace_back(ValueOrigin{key, value_text(field), "", {}});
    const Node* node = find_node(root, key);
    if (node == nullptr) return;
    origin.place = node->place.text();
    for (const Place& covered : node->covered) origin.covered.push_back(covered.text());
  });
  return origins;
}

void parse_config(AnyConfig out, std::string_view yaml, const std::string& source,
                  std::span<const std::string> overrides) {
  Node root;
  Problems problems = problems_placed_in(root);
  root = resolve_includes(read_yaml(yaml, source, YamlSource::file, problems), source, problems);
  bind_tree(out, root, overrides, problems);
}

void check_config(AnyConfig config) {
  Problems problems;
  Binder(config, nullptr, problems).bind();
  problems.throw_if_any();
}

}  // namespace ziggurat
