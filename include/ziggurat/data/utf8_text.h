// Text that should be UTF-8, from and for people.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace ziggurat {

// The offset of the first byte that belongs to no well-formed character.
std::optional<size_t> first_invalid_utf8(std::string_view text);

// `text` with U+FFFD for what is not well-formed: one for each byte, or for each beginning of a character
// that is not finished (Unicode 15, section 3.9, "maximal subpart").
std::string with_replacement_characters(std::string_view text);

}  // namespace ziggurat
