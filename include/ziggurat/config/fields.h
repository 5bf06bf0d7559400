// One list of fields per config struct; YAML, overrides, dump, check, schema and help all come from it.
//
//   struct OptimizerConfig {
//     double lr = 3e-4;
//     int64_t warmup_tokens = 375'000'000;
//     template <class V>
//     void visit_fields(V& v) {
//       v.field("lr", lr, "peak learning rate", above(0.0));
//       v.field("warmup_tokens", warmup_tokens, "linear warm-up", unit::tokens, at_least(0));
//     }
//     void validate(Problems& problems) const;  // optional: rules that need more than one field
//   };
//
// Field types: bool, int, int64_t, double, std::string, enums, structs like the one above, std::vector of
// these (not of bool, not of vectors), std::optional of scalars. The initialiser is the default. A default
// outside its own range makes the key required. An enum brings its names, beside its definition:
//
//   inline std::vector<EnumName> enum_names(FfnKind) { return {{FfnKind::dense, "dense"}, ...}; }
//
// The templates below only take addresses; everything else is compiled once, over FieldList and TypeInfo.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include <ziggurat/config/problems.h>

namespace ziggurat {

enum class Unit { none, tokens, samples, steps, count, bytes, seconds };

namespace unit {
inline constexpr Unit tokens = Unit::tokens;
inline constexpr Unit samples = Unit::samples;
inline constexpr Unit steps = Unit::steps;
inline constexpr Unit count = Unit::count;      // anything counted in K, M, B, T
inline constexpr Unit bytes = Unit::bytes;      // 2GiB
inline constexpr Unit seconds = Unit::seconds;  // 36h, 90m
}  // namespace unit

// Bounds of a number; of each element for a list. Several may be given: at_least(0), below(1).
struct Range {
  std::optional<double> low = {}, high = {};
  bool low_open = false, high_open = false;
};
inline Range above(double low) { return {.low = low, .low_open = true}; }
inline Range at_least(double low) { return {.low = low}; }
inline Range below(double high) { return {.high = high, .high_open = true}; }
inline Range at_most(double high) { return {.high = high}; }
inline Range between(double low, double high) { return {.low = low, .high = high}; }  // both included

struct NotEmpty {};
inline constexpr NotEmpty not_empty{};  // a text or a list must have something in it

struct EnumName {
  template <class E>
  requires std::is_enum_v<E> EnumName(E v, std::string_view n) : value(static_cast<int64_t>(v)), name(n) {}
  int64_t value;
  std::string name;
};

// The name of an enum value in configs, logs and messages.
template <class E>
requires std::is_enum_v<E> std::string enum_text(E value) {
  for (EnumName& candidate : enum_names(E{})) {
    if (candidate.value == static_cast<int64_t>(value)) return std::move(candidate.name);
  }
  return "invalid";
}

class FieldList;

// The value of a scalar field; monostate = an optional without a value.
using Scalar = std::variant<std::monostate, bool, int64_t, double, std::string>;

enum class ValueKind { boolean, integer, real, text, choice, record, list };

// What the compiled part needs to know about a C++ type. Members that a kind doesn't use are null.
struct TypeInfo {
  ValueKind kind;
  bool optional = false;
  bool small = false;  // an integer of 32 bits
  Scalar (*get)(const void*) = nullptr;
  void (*set)(void*, const Scalar&) = nullptr;
  std::vector<EnumName> (*names)() = nullptr;              // choice
  void (*fields)(void*, FieldList&) = nullptr;             // record
  void (*validate)(const void*, Problems&) = nullptr;      // record, when it has validate()
  const TypeInfo* element = nullptr;                       // list
  size_t (*size)(const void*) = nullptr;                   // list
  void (*assign_defaults)(void*, size_t count) = nullptr;  // list: `count` new elements, as declared
  void* (*at)(void*, size_t index) = nullptr;              // list
  std::shared_ptr<void> (*make)() = nullptr;               // a new object, as declared

  bool is_scalar() const { return kind != ValueKind::record && kind != ValueKind::list; }
};

template <class T>
const TypeInfo& type_info();

struct Field {
  std::string name;
  std::string help;
  const TypeInfo* type;
  void* value;
  Unit unit = Unit::none;
  Range range = {};
  bool not_empty = false;
};

class FieldList {
 public:
  // Options: a unit, ranges, not_empty. Throws Error(internal) when the declaration itself is wrong.
  template <class T, class... Options>
  void field(std::string_view name, T& value, std::string_view help, const Options&... options) {
    add(name, help, type_info<T>(), &value);
    (apply(options), ...);
  }

  const std::vector<Field>& fields() const { return fields_; }
  const Field* find(std::string_view name) const;

 private:
  void add(std::string_view name, std::string_view help, const TypeInfo& type, void* value);
  void apply(Unit unit);
  void apply(const Range& range);
  void apply(NotEmpty);
  std::vector<Field> fields_;
};

namespace config_detail {

template <class T>
concept Record = requires(T& value, FieldList& fields) {
  value.visit_fields(fields);
};

template <class T>
concept Validated = requires(const T& value, Problems& problems) {
  value.validate(problems);
};

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

// How a scalar of type T is stored in a Scalar.
template <class T>
using Stored = std::conditional_t<std::is_same_v<T, int> || std::is_enum_v<T>, int64_t, T>;

template <class T>
constexpr ValueKind scalar_kind() {
  if constexpr (std::is_same_v<T, bool>) return ValueKind::boolean;
  if constexpr (std::is_same_v<T, int> || std::is_same_v<T, int64_t>) return ValueKind::integer;
  if constexpr (std::is_same_v<T, double>) return ValueKind::real;
  if constexpr (std::is_same_v<T, std::string>) return ValueKind::text;
  if constexpr (std::is_enum_v<T>) return ValueKind::choice;
}

template <class T>
TypeInfo make_scalar_type() {
  static_assert(std::is_enum_v<T> || std::is_same_v<T, bool> || std::is_same_v<T, int> ||
                    std::is_same_v<T, int64_t> || std::is_same_v<T, double> || std::is_same_v<T, std::string>,
                "a config field is bool, int, int64_t, double, std::string, an enum, a struct with "
                "visit_fields, a std::vector of these or a std::optional of a scalar");
  TypeInfo type{.kind = scalar_kind<T>()};
  type.small = std::is_same_v<T, int>;
  type.get = [](const void* value) { return Scalar(static_cast<Stored<T>>(*static_cast<const T*>(value))); };
  type.set = [](void* value, const Scalar& scalar) {
    *static_cast<T*>(value) = static_cast<T>(std::get<Stored<T>>(scalar));
  };
  if constexpr (std::is_enum_v<T>) {
    type.names = [] { return std::vector<EnumName>(enum_names(T{})); };
  }
  return type;
}

template <class T>
TypeInfo make_optional_type() {
  using Value = typename T::value_type;
  TypeInfo type = make_scalar_type<Value>();
  type.optional = true;
  type.get = [](const void* value) {
    const T& optional = *static_cast<const T*>(value);
    return optional ? Scalar(static_cast<Stored<Value>>(*optional)) : Scalar();
  };
  type.set = [](void* value, const Scalar& scalar) {
    T& optional = *static_cast<T*>(value);
    if (std::holds_alternative<std::monostate>(scalar)) {
      optional.reset();
    } else {
      optional = static_cast<Value>(std::get<Stored<Value>>(scalar));
    }
  };
  return type;
}

template <class T>
TypeInfo make_list_type() {
  using Element = typename T::value_type;
  static_assert(!std::is_same_v<Element, bool>, "std::vector<bool> has no addressable elements");
  static_assert(!IsVector<Element>::value, "a list of lists: give the inner list a struct with a name");
  TypeInfo type{.kind = ValueKind::list};
  type.element = &type_info<Element>();
  type.size = [](const void* value) { return static_cast<const T*>(value)->size(); };
  type.assign_defaults = [](void* value, size_t count) { static_cast<T*>(value)->assign(count, Element{}); };
  type.at = [](void* value, size_t index) -> void* { return &(*static_cast<T*>(value))[index]; };
  return type;
}

template <class T>
TypeInfo make_record_type() {
  TypeInfo type{.kind = ValueKind::record};
  type.fields = [](void* value, FieldList& fields) { static_cast<T*>(value)->visit_fields(fields); };
  if constexpr (Validated<T>) {
    type.validate = [](const void* value, Problems& problems) {
      static_cast<const T*>(value)->validate(problems);
    };
  }
  return type;
}

template <class T>
TypeInfo make_type() {
  TypeInfo type = [] {
    if constexpr (Record<T>) {
      return make_record_type<T>();
    } else if constexpr (IsVector<T>::value) {
      return make_list_type<T>();
    } else if constexpr (IsOptional<T>::value) {
      return make_optional_type<T>();
    } else {
      return make_scalar_type<T>();
    }
  }();
  type.make = []() -> std::shared_ptr<void> { return std::make_shared<T>(); };
  return type;
}

}  // namespace config_detail

template <class T>
const TypeInfo& type_info() {
  static const TypeInfo type = config_detail::make_type<T>();
  return type;
}

}  // namespace ziggurat
