// JSON from a file or a client that nobody vouches for.
#pragma once

#include <stdexcept>
#include <string_view>

#include <nlohmann/json.hpp>

namespace ziggurat {

// Copies, texts and lookups of a value call themselves for every level: a few million open brackets, which
// are a few megabytes, would use up the stack and end the process.
inline constexpr int kMostJsonLevels = 64;

// What is wrong with the text, and where in it; the caller says whose text it is.
struct JsonFault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws JsonFault where the text is no JSON in UTF-8, holds a NUL (at which the library would stop and call
// it the end), nests lists and objects deeper than kMostJsonLevels, or gives an object one key twice (of two
// values one would be read and nobody told). A byte-order mark before it is skipped.
nlohmann::json parse_untrusted_json(std::string_view text);

}  // namespace ziggurat
