#include <array>

#include "data/unicode_tables.h"
#include "data/utf8.h"
#include <ziggurat/data/gpt2_split.h>

namespace ziggurat {
namespace {

struct ClassedChar {
  CharClass char_class;
  int length;
};

// Most text is ASCII: its classes lie in 128 bytes, away from the large tables.
constexpr std::array<CharClass, 128> make_ascii_classes() {
  std::array<CharClass, 128> classes{};
  for (int c = 'a'; c <= 'z'; ++c) classes[static_cast<size_t>(c)] = CharClass::letter;
  for (int c = 'A'; c <= 'Z'; ++c) classes[static_cast<size_t>(c)] = CharClass::letter;
  for (int c = '0'; c <= '9'; ++c) classes[static_cast<size_t>(c)] = CharClass::number;
  for (int c = 0x09; c <= 0x0d; ++c) classes[static_cast<size_t>(c)] = CharClass::space;
  classes[' '] = CharClass::space;
  return classes;
}
constexpr std::array<CharClass, 128> kAsciiClasses = make_ascii_classes();

inline ClassedChar classify(const char* p, const char* end) {
  const auto first = static_cast<uint8_t>(*p);
  if (first < 0x80) [[likely]] {
    return {kAsciiClasses[first], 1};
  }
  const Utf8Char c = decode_utf8(p, end);
  return {c.valid ? char_class(c.code_point) : CharClass::other, c.length};
}

// First position at or after p whose character is not of class `run`.
inline const char* end_of_run(const char* p, const char* end, CharClass run) {
  while (p < end) {
    const ClassedChar c = classify(p, end);
    if (c.char_class != run) break;
    p += c.length;
  }
  return p;
}

// Length of 's 't 're 've 'm 'll 'd at p (lower case only, as published), else 0.
inline size_t contraction_length(const char* p, const char* end) {
  if (end - p < 2) return 0;
  const char a = p[1];
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if (end - p < 3) return 0;
  const char b = p[2];
  return (a == 'l' && b == 'l') || (a == 'v' && b == 'e') || (a == 'r' && b == 'e') ? 3 : 0;
}

// A white-space run that starts at p. Before a non-space its last character is left over: a space joins the
// next word, anything else stands alone (that is what \s+(?!\S)|\s+ comes to).
inline const char* end_of_white_space(const char* p, const char* end) {
  const char* last = p;
  const char* q = p;
  while (q < end) {
    const ClassedChar c = classify(q, end);
    if (c.char_class != CharClass::space) break;
    last = q;
    q += c.length;
  }
  return q == end || last == p ? q : last;
}

}  // namespace

size_t gpt2_piece_length(const char* text, const char* end) {
  if (*text == '\'') {
    if (const size_t length = contraction_length(text, end)) return length;
  }
  const char* word = text;
  if (*text == ' ' && text + 1 < end) ++word;  // " ?" before a word
  const ClassedChar first = classify(word, end);
  const char* stop = first.char_class == CharClass::space
                         ? end_of_white_space(text, end)
                         : end_of_run(word + first.length, end, first.char_class);
  return static_cast<size_t>(stop - text);
}

std::vector<std::string_view> gpt2_split(std::string_view text) {
  std::vector<std::string_view> pieces;
  while (!text.empty()) {
    const size_t length = gpt2_piece_length(text.data(), text.data() + text.size());
    pieces.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return pieces;
}

size_t gpt2_safe_cut(std::string_view text) {
  // Only ASCII white space is looked for: it never lies inside a multi-byte character, and a byte before it
  // that is >= 0x80 could end a multi-byte white-space character, so that place is passed over.
  for (size_t i = text.size(); i-- > 1;) {
    const auto here = static_cast<uint8_t>(text[i]), before = static_cast<uint8_t>(text[i - 1]);
    if (here < 0x80 && before < 0x80 && kAsciiClasses[here] == CharClass::space &&
        kAsciiClasses[before] != CharClass::space) {
      return i;
    }
  }
  return text.size();
}

std::string_view unicode_version() { return kUnicodeVersion; }

}  // namespace ziggurat
