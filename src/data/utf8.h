// Decoding UTF-8 that may be broken.
#pragma once

#include <cstdint>

namespace ziggurat {

struct Utf8Char {
  uint32_t code_point = 0;
  int length = 1;      // bytes
  bool valid = false;  // false: one byte that starts no well-formed character (Unicode 15, table 3-7)
};

// The character at p; p < end. Rejects overlong forms, surrogates and values past U+10FFFF.
inline Utf8Char decode_utf8(const char* p, const char* end) {
  const auto byte = [&](int i) { return static_cast<uint8_t>(p[i]); };
  const auto continues = [&](int i) { return end - p > i && (byte(i) & 0xc0) == 0x80; };
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, 1, true};
  if (first >= 0xc2 && first <= 0xdf && continues(1)) {
    return {(first & 0x1fu) << 6 | (byte(1) & 0x3fu), 2, true};
  }
  if (first >= 0xe0 && first <= 0xef && continues(1) && continues(2)) {
    const uint32_t c = (first & 0x0fu) << 12 | (byte(1) & 0x3fu) << 6 | (byte(2) & 0x3fu);
    if (c >= 0x800 && (c < 0xd800 || c > 0xdfff)) return {c, 3, true};
  }
  if (first >= 0xf0 && first <= 0xf4 && continues(1) && continues(2) && continues(3)) {
    const uint32_t c =
        (first & 0x07u) << 18 | (byte(1) & 0x3fu) << 12 | (byte(2) & 0x3fu) << 6 | (byte(3) & 0x3fu);
    if (c >= 0x10000 && c <= 0x10ffff) return {c, 4, true};
  }
  return {};
}

}  // namespace ziggurat
