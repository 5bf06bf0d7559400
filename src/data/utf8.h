// Decoding UTF-8 that may be broken.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

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

// Bytes at the end of `text` that begin a well-formed character and do not finish it: 0 to 3.
inline size_t unfinished_utf8(std::string_view text) {
  // The least second byte that may follow, where not every continuation byte may (table 3-7).
  const auto second_may_follow = [](uint8_t first, uint8_t second) {
    const uint8_t least = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const uint8_t most = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    return least <= second && second <= most;
  };
  for (size_t n = 1; n <= std::min<size_t>(3, text.size()); ++n) {
    const auto* tail = reinterpret_cast<const uint8_t*>(text.data() + text.size() - n);
    if ((tail[0] & 0xc0) == 0x80) continue;
    const size_t length = tail[0] < 0xc2   ? 1
                          : tail[0] < 0xe0 ? 2
                          : tail[0] < 0xf0 ? 3
                          : tail[0] < 0xf5 ? 4
                                           : 1;
    return n < length && (n == 1 || second_may_follow(tail[0], tail[1])) ? n : 0;
  }
  return 0;
}

}  // namespace ziggurat
