// One string out of a line of JSON.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ziggurat {

struct JsonField {
  std::string text;
  std::string kind;   // "string", or what stands there instead, as in "null"; "": the key is missing
  int64_t times = 0;  // how often the key came; the last counts, as in Python and JavaScript
  int64_t lone_surrogates = 0;  // halves of a UTF-16 pair in the text (as in "\ud83d"), each now U+FFFD
};

// What is under `key` of the object that `line` is. Nested objects with the same key don't count. Bytes that
// are no UTF-8 stay as they are. Values of other keys may be what JSON's grammar allows, of any size and
// depth, and also NaN, Infinity and -Infinity, which Python writes. Error (data) starting with `place` and
// the column if the line is no JSON object.
JsonField read_json_field(std::string_view line, std::string_view key, const std::string& place);

}  // namespace ziggurat
