// One scalar field: its text to its value and back, and what its messages say.
#pragma once

#include <string>
#include <string_view>

#include <ziggurat/config/fields.h>

namespace ziggurat {

// "a number above 0", "a token count at least 1 (such as 300B)", "one of dense, moe", "a map of keys".
std::string expected_text(const Field& field);

// Short, for tables: "number", "tokens", "dense | moe", "list of text".
std::string type_text(const Field& field);

// " above 0 and at most 1"; empty without bounds.
std::string range_text(const Range& range);

// The field whose value is one element of a list field.
Field element_field(const Field& list, size_t index);

// Whether the bounds of the field (not_empty included) allow the value; an optional without a value is fine.
bool in_range(const Field& field, const Scalar& value);

struct ParsedScalar {
  Scalar value;
  std::string note;  // why not, or a suggestion: "; did you mean 'moe'?"
  bool ok = false;
};
ParsedScalar parse_scalar(const Field& field, const std::string& text);

// As YAML: quoted where needed, with units where exact, null for an empty optional.
std::string scalar_text(const Field& field);
std::string scalar_text(const Field& field, const Scalar& value);

// A list of scalars on one line: [1, 2].
std::string scalar_list_text(const Field& field);

}  // namespace ziggurat
