#include "data/invalid_text.h"

#include <algorithm>

#include <emmintrin.h>
#include <fmt/format.h>

#include "data/ascii_words.h"
#include "data/utf8.h"

namespace ziggurat {
namespace {

// The first of [p, end) that is not in sixteen bytes of ASCII without NUL.
const char* skip_ascii(const char* p, const char* end) {
  while (end - p >= 16 && _mm_movemask_epi8(_mm_cmpgt_epi8(load16(p), _mm_setzero_si128())) == 0xffff) p += 16;
  return p;
}

std::ptrdiff_t length_by_first_byte(char c) {
  const auto first = static_cast<uint8_t>(c);
  return first < 0xc2 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 1;
}

}  // namespace

void InvalidText::add(std::string_view block) {
  if (!cut_.empty()) {
    const size_t had = cut_.size(), taken = std::min<size_t>(3, block.size());  // ends any character
    cut_ += block.substr(0, taken);
    const size_t scanned = scan(cut_, false);
    if (scanned < had) {  // a block of a byte or two
      cut_.erase(0, scanned);
      return;
    }
    block.remove_prefix(scanned - had);
    cut_.clear();
  }
  cut_ = block.substr(scan(block, false));
}

void InvalidText::finish() {
  scan(cut_, true);
  cut_.clear();
}

size_t InvalidText::scan(std::string_view text, bool to_the_end) {
  const char *p = text.data(), *const end = p + text.size();
  while (p < end) {
    p = skip_ascii(p, end);
    // Then character by character, to the next multiple of sixteen bytes of text that is not ASCII.
    const char* const stop = end - p > 16 ? p + 16 : end;
    while (p < stop) {
      if (static_cast<int8_t>(*p) > 0) {
        ++p;
        continue;
      }
      if (!to_the_end && end - p < length_by_first_byte(*p)) goto cut;
      const Utf8Char c = decode_utf8(p, end);
      if (!c.valid || c.code_point == 0) note(text, static_cast<size_t>(p - text.data()));
      p += c.length;
    }
  }
cut:
  const auto scanned = static_cast<size_t>(p - text.data());
  bytes_ += static_cast<int64_t>(scanned);
  if (first_byte_ < 0) lines_ += std::count(text.data(), p, '\n');
  return scanned;
}

void InvalidText::note(std::string_view text, size_t at) {
  const int64_t place = bytes_ + static_cast<int64_t>(at);
  text[at] == 0 ? ++nul_[static_cast<size_t>(place % 2)] : ++not_utf8_;
  if (first_byte_ >= 0) return;
  first_byte_ = place;
  first_line_ = lines_ + 1 + std::count(text.data(), text.data() + at, '\n');
}

std::string InvalidText::first_place() const { return fmt::format("byte {} (line {})", first_byte_, first_line_); }

std::string InvalidText::description() const {
  const int64_t nul = nul_[0] + nul_[1];
  std::string kinds = not_utf8_ > 0 ? fmt::format("{} not valid UTF-8", not_utf8_) : "";
  if (nul > 0) kinds += fmt::format("{}{} NUL", kinds.empty() ? "" : ", ", nul);
  return fmt::format("{} of {} bytes ({:.3g} %) are no text ({}), the first at {}; {}", invalid(), bytes_,
                     100.0 * static_cast<double>(invalid()) / static_cast<double>(std::max<int64_t>(1, bytes_)),
                     kinds, first_place(), cure());
}

// UTF-16 of Western text has a NUL in every other byte, of other alphabets at least at each space; which
// byte of a pair it is tells the byte order.
std::string InvalidText::cure() const {
  const int64_t many = std::max(nul_[0], nul_[1]), few = std::min(nul_[0], nul_[1]);
  if (many * 50 > bytes_ && few * 10 <= many) {
    return fmt::format("it looks like UTF-16; convert it, as in: iconv -f UTF-16{} -t UTF-8 FILE > NEW",
                       nul_[1] > nul_[0] ? "LE" : "BE");
  }
  if (nul_[0] + nul_[1] > bytes_ / 2) return "it looks like UTF-32; convert it, as in: iconv -f UTF-32LE -t UTF-8 FILE > NEW";
  if (few * 50 > bytes_) return "it looks like binary data; leave it out of the input";
  return "convert it from the encoding that it has, as in: iconv -f ISO-8859-1 -t UTF-8 FILE > NEW";
}

}  // namespace ziggurat
