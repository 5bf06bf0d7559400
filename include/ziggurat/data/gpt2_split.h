// The GPT-2 split rule: where a text is cut into pieces before byte-pair merges, which never cross a cut.
// As a regular expression, tried in this order at every position (OpenAI, encoder.py of GPT-2):
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// Here it is a hand-written scanner: linear time, no allocation. A byte that is no valid UTF-8 counts as one
// "other" character, so any bytes can be split.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace ziggurat {

// Length in bytes of the first piece of [text, end); text < end. A piece starts afresh at every cut: what
// came before never matters.
size_t gpt2_piece_length(const char* text, const char* end);

// All pieces; their concatenation is `text`.
std::vector<std::string_view> gpt2_split(std::string_view text);

// The last offset in (0, text.size()] at which `text` may be cut without changing any piece, i.e. a
// white-space character after a character that is none; text.size() if there is no such place.
size_t gpt2_safe_cut(std::string_view text);

// Version of the Unicode tables behind \p{L}, \p{N} and \s.
std::string_view unicode_version();

}  // namespace ziggurat
