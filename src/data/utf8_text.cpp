#include "data/utf8.h"
#include <ziggurat/data/utf8_text.h>

namespace ziggurat {
namespace {

// Bytes at the start of `text`, which begins no whole character, that stand for one replacement character.
size_t maximal_subpart(std::string_view text) {
  for (size_t n = std::min<size_t>(3, text.size()); n > 1; --n) {
    if (unfinished_utf8(text.substr(0, n)) == n) return n;
  }
  return 1;
}

}  // namespace

std::optional<size_t> first_invalid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8(text.data() + i, text.data() + text.size());
    if (!c.valid) return i;
    i += static_cast<size_t>(c.length);
  }
  return std::nullopt;
}

std::string with_replacement_characters(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t valid = first_invalid_utf8(text).value_or(text.size());
    out += text.substr(0, valid);
    text.remove_prefix(valid);
    if (text.empty()) break;
    out += "\xef\xbf\xbd";
    text.remove_prefix(maximal_subpart(text));
  }
  return out;
}

}  // namespace ziggurat
