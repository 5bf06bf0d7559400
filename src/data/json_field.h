// One string out of a line of JSON.
#pragma once

#include <string>
#include <string_view>

namespace ziggurat {

// The string under `key` of the object that `line` is. Nested objects with the same key don't count. Error
// (data) starting with `place` if the line is no JSON object or has no such string.
std::string json_string_field(std::string_view line, const std::string& key, const std::string& place);

}  // namespace ziggurat
