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
  while (end - p >= 16 && _mm_movemask_epi8(_mm_cmpgt_epi8(load16(p), _mm_setzero_si128())) == 0xffff)
    p += 16;
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
  text[at] == 0 ? ++nul_[static_cast<size_t>(place % 4)] : ++not_utf8_;
  if (first_byte_ >= 0) return;
  first_byte_ = place;
  first_line_ = lines_ + 1 + std::count(text.data(), text.data() + at, '\n');
}

std::string InvalidText::first_place() const {
  return fmt::format("byte {} (line {})", first_byte_, first_line_);
}

std::string InvalidText::description() const {
  std::string kinds = not_utf8_ > 0 ? fmt::format("{} not valid UTF-8", not_utf8_) : "";
  if (nul() > 0) kinds += fmt::format("{}{} NUL", kinds.empty() ? "" : ", ", nul());
  return fmt::format(
      "{} of {} bytes ({:.3g} %) are no text ({}), the first at {}; {}", invalid(), bytes_,
      100.0 * static_cast<double>(invalid()) / static_cast<double>(std::max<int64_t>(1, bytes_)), kinds,
      first_place(), cure());
}

// A code unit of UTF-32 begins (or ends) with a NUL; one of UTF-16 does in Western text, and in others at
// least at each space. Which of its bytes have them tells the byte order.
std::string InvalidText::cure() const {
  const auto iconv = [](std::string_view encoding) {
    return fmt::format("it looks like {0}; convert it, as in: iconv -f {0} -t UTF-8 FILE > NEW", encoding);
  };
  const auto much_more = [](int64_t a, int64_t b) { return a > 10 * b; };
  if (nul() > bytes_ / 2 && much_more(nul_[0], nul_[3])) return iconv("UTF-32BE");
  if (nul() > bytes_ / 2 && much_more(nul_[3], nul_[0])) return iconv("UTF-32LE");
  const int64_t even = nul_[0] + nul_[2], odd = nul_[1] + nul_[3];
  constexpr int64_t kBytesPerNul = 50;  // at most, in words with spaces
  if (even * kBytesPerNul > bytes_ && much_more(even, odd)) return iconv("UTF-16BE");
  if (odd * kBytesPerNul > bytes_ && much_more(odd, even)) return iconv("UTF-16LE");
  if (nul() * kBytesPerNul > bytes_) return "it looks like binary data; leave it out of the input";
  return "convert it from the encoding that it has, as in: iconv -f ISO-8859-1 -t UTF-8 FILE > NEW";
}

}  // namespace ziggurat
