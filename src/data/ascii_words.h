// The commonest pieces of the GPT-2 split rule, found sixteen bytes at a time: an optional space and ASCII
// letters. Everything else is gpt2_piece_length's. SSE2 belongs to every x86-64.
#pragma once

#include <bit>
#include <cstdint>

#include <emmintrin.h>

namespace ziggurat {

// The sixteen bytes at p, as the registers want them.
inline __m128i load16(const char* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

// Length (1 to 15) of the piece that starts the sixteen bytes, if it is `' '? [A-Za-z]+` and ends before an
// ASCII character within them; else 0.
inline unsigned ascii_word_length(__m128i bytes) {
  // Setting bit 5 makes letters lower case. Moved down so that 'a' is the least signed value, letters are
  // the 26 least ones.
  const __m128i lower = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
  const __m128i moved = _mm_sub_epi8(lower, _mm_set1_epi8(static_cast<char>('a' + 128)));
  const __m128i is_letter = _mm_cmplt_epi8(moved, _mm_set1_epi8(-128 + 26));
  const auto letters = static_cast<uint32_t>(_mm_movemask_epi8(is_letter));
  const auto not_ascii = static_cast<uint32_t>(_mm_movemask_epi8(bytes));
  const uint32_t space = (_mm_cvtsi128_si32(bytes) & 0xff) == ' ';
  const auto word = static_cast<unsigned>(std::countr_one(letters >> space));
  const unsigned length = word + space;
  return word > 0 && length < 16 && (not_ascii >> length & 1) == 0 ? length : 0;
}

}  // namespace ziggurat
