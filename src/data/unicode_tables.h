// Which code points are letters, numbers or white space, as a two-level table of 2-bit classes.
#pragma once

#include <cstdint>

namespace ziggurat {

enum class CharClass : uint8_t { other = 0, letter = 1, number = 2, space = 3 };

extern const char* const kUnicodeVersion;    // of the Unicode Character Database, e.g. "15.0.0"
extern const uint8_t kUnicodeBlock[4352];    // [code point / 256] -> row of kUnicodeClasses
extern const uint8_t kUnicodeClasses[][64];  // [row][code point % 256 / 4], four classes a byte

// code_point < 0x110000
inline CharClass char_class(uint32_t code_point) {
  const uint8_t packed = kUnicodeClasses[kUnicodeBlock[code_point >> 8]][(code_point >> 2) & 63];
  return static_cast<CharClass>((packed >> (2 * (code_point & 3))) & 3);
}

}  // namespace ziggurat
