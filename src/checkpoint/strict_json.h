// JSON as a checkpoint reads it: syntax errors and duplicate keys are refused, numbers must fit.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

// Parses an object of objects member by member without keeping it: member(name, value). `where` names the
// source in errors. Nesting deeper than `max_depth` is refused.
void for_each_member(std::string_view text, const std::string& where, int max_depth,
                     const std::function<void(const std::string&, const nlohmann::json&)>& member);

// A name from an untrusted file, fit for a message.
std::string shown(const std::string& name);

// Each throws Error(checkpoint) naming `where`.
int64_t json_int64(const nlohmann::json& value, const std::string& where);  // in [0, 2^63)
const std::string& json_string(const nlohmann::json& value, const std::string& where);
Shape json_shape(const nlohmann::json& value, const std::string& where);

// Bytes of a tensor; throws when the product overflows.
int64_t checked_bytes(const Shape& shape, int64_t element_bytes, const std::string& where);

// "F32", "BF16", "F64", "I32"
const char* dtype_code(DType dtype);
DType dtype_from_code(const std::string& code, const std::string& where);
std::optional<DType> known_dtype(const std::string& code);
// Of every dtype that the format names, also those that Tensor lacks; 0: not known, or less than a byte.
int64_t element_bytes(const std::string& code);

}  // namespace ziggurat
