#include "data/json_field.h"

#include <bit>

#include <emmintrin.h>

#include "data/ascii_words.h"
#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

constexpr uint32_t kReplacement = 0xfffd;

bool is_high_surrogate(uint32_t c) { return c >= 0xd800 && c <= 0xdbff; }
bool is_low_surrogate(uint32_t c) { return c >= 0xdc00 && c <= 0xdfff; }

void append_utf8(uint32_t c, std::string& out) {
  const auto add = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) return add(c);
  if (c < 0x800) {
    add(0xc0 | c >> 6);
  } else {
    if (c < 0x10000) {
      add(0xe0 | c >> 12);
    } else {
      add(0xf0 | c >> 18);
      add(0x80 | (c >> 12 & 0x3f));
    }
    add(0x80 | (c >> 6 & 0x3f));
  }
  add(0x80 | (c & 0x3f));
}

// Reads by RFC 8259, from left to right and without recursion.
class JsonReader {
 public:
  JsonReader(std::string_view line, const std::string& place)
      : begin_(line.data()), p_(begin_), end_(begin_ + line.size()), place_(place) {}

  JsonField field(std::string_view key) {
    JsonField field;
    std::string name;
    skip_space();
    expect('{', "an object, which begins with '{' (one a line; `jq -c .[] FILE` makes lines of an array)");
    skip_space();
    if (!take('}')) {
      do {
        read_name(name);
        name == key ? read_wanted(field) : skip_value();
        skip_space();
      } while (take(','));
      expect('}', "',' or '}'");
    }
    skip_space();
    if (p_ < end_) fault("the end of the line after the object");
    return field;
  }

 private:
  [[noreturn]] void fault(const char* expected) const {
    const std::string got = p_ == end_ ? "the end of the line (is the file cut off, or does an object take "
                                         "several lines? `jq -c . FILE` makes lines)"
                            : static_cast<uint8_t>(*p_) >= 0x20 && static_cast<uint8_t>(*p_) < 0x7f
                                ? fmt::format("'{}'", *p_)
                                : fmt::format("byte 0x{:02x}", static_cast<uint8_t>(*p_));
    fail(ErrorKind::data, "{}, column {}, is no valid JSON: expected {}, got {}", place_, p_ - begin_ + 1,
         expected, got);
  }

  void skip_space() {
    while (p_ < end_ && (*p_ == ' ' || *p_ == '\t' || *p_ == '\r' || *p_ == '\n')) ++p_;
  }
  bool take(char c) {
    if (p_ == end_ || *p_ != c) return false;
    ++p_;
    return true;
  }
  void expect(char c, const char* expected) {
    if (!take(c)) fault(expected);
  }
  bool take_word(std::string_view word) {
    if (!std::string_view(p_, static_cast<size_t>(end_ - p_)).starts_with(word)) return false;
    p_ += word.size();
    return true;
  }

  // The name of a member and the colon after it.
  void read_name(std::string& name) {
    skip_space();
    name.clear();
    read_string(name);
    skip_space();
    expect(':', "':' after a name");
  }

  void read_wanted(JsonField& field) {
    skip_space();
    ++field.times;
    field.text.clear();
    field.lone_surrogates = 0;
    if (p_ < end_ && *p_ == '"') {
      field.kind = "string";
      field.lone_surrogates = read_string(field.text);
    } else {
      field.kind = p_ == end_                 ? ""
                   : *p_ == '{'               ? "object"
                   : *p_ == '['               ? "array"
                   : *p_ == 'n'               ? "null"
                   : *p_ == 't' || *p_ == 'f' ? "boolean"
                                              : "number";
      skip_value();
    }
  }

  // Appends a string to `out` and returns how many halves of surrogate pairs were replaced.
  int64_t read_string(std::string& out) {
    int64_t replaced = 0;
    expect('"', "'\"', which begins a string");
    for (;;) {
      const char* const plain = p_;
      skip_plain();
      out.append(plain, p_);
      if (take('"')) return replaced;
      if (p_ == end_ || *p_ != '\\')
        fault("'\"', which ends the string (control characters are written as escapes)");
      ++p_;
      replaced += read_escape(out);
    }
  }

  // To the next quote, backslash or control character.
  void skip_plain() {
    while (end_ - p_ >= 16) {
      const __m128i bytes = load16(p_);
      const __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
      const __m128i marks =
          _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
      const auto found = static_cast<uint32_t>(_mm_movemask_epi8(_mm_or_si128(low, marks)));
      if (found != 0) {
        p_ += std::countr_zero(found);
        return;
      }
      p_ += 16;
    }
    while (p_ < end_ && *p_ != '"' && *p_ != '\\' && static_cast<uint8_t>(*p_) >= 0x20) ++p_;
  }

  // What follows a backslash; returns 1 for half a surrogate pair.
  int64_t read_escape(std::string& out) {
    constexpr std::string_view kLetters = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    if (take('u')) return read_code_point(out);
    const size_t which = p_ == end_ ? std::string_view::npos : kLetters.find(*p_);
    if (which == std::string_view::npos) fault("an escape of JSON after a backslash");
    ++p_;
    out += kMeanings[which];
    return 0;
  }

  int64_t read_code_point(std::string& out) {
    const uint32_t unit = read_hex();
    if (is_high_surrogate(unit)) {
      const char* const after = p_;
      if (take_word("\\u")) {
        if (const uint32_t low = read_hex(); is_low_surrogate(low)) {
          append_utf8(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00), out);
          return 0;
        }
      }
      p_ = after;
    }
    const bool lone = is_high_surrogate(unit) || is_low_surrogate(unit);
    append_utf8(lone ? kReplacement : unit, out);
    return lone ? 1 : 0;
  }

  uint32_t read_hex() {
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i, ++p_) {
      const char c = p_ == end_ ? '\0' : *p_;
      const char lower = static_cast<char>(c | 0x20);
      if (c >= '0' && c <= '9') {
        value = value << 4 | static_cast<uint32_t>(c - '0');
      } else if (lower >= 'a' && lower <= 'f') {
        value = value << 4 | static_cast<uint32_t>(lower - 'a' + 10);
      } else {
        fault("four hexadecimal digits after \\u");
      }
    }
    return value;
  }

  // Any value. `open_` holds the brackets that close the containers it is in by now.
  void skip_value() {
    open_.clear();
    do {
      skip_space();
      if (take('{')) {
        open_ += '}';
        skip_space();
        if (p_ < end_ && *p_ != '}') {
          read_name(scratch_);
          continue;
        }
      } else if (take('[')) {
        open_ += ']';
        skip_space();
        if (p_ < end_ && *p_ != ']') continue;
      } else {
        skip_scalar();
      }
      close_what_ends();
    } while (!open_.empty());
  }

  // After a value, or in an empty container: closes containers up to a comma, after which a value comes.
  void close_what_ends() {
    while (!open_.empty()) {
      skip_space();
      if (take(open_.back())) {
        open_.pop_back();
        continue;
      }
      expect(',', open_.back() == '}' ? "',' or '}'" : "',' or ']'");
      if (open_.back() == '}') read_name(scratch_);
      return;
    }
  }

  void skip_scalar() {
    if (p_ < end_ && *p_ == '"') {
      scratch_.clear();
      read_string(scratch_);
      return;
    }
    for (const std::string_view word : {"true", "false", "null", "NaN", "Infinity", "-Infinity"}) {
      if (take_word(word)) return;
    }
    take('-');
    if (!take('0')) skip_digits("a value");
    if (take('.')) skip_digits("a digit");
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      skip_digits("a digit");
    }
  }

  void skip_digits(const char* expected) {
    const char* const first = p_;
    while (p_ < end_ && *p_ >= '0' && *p_ <= '9') ++p_;
    if (p_ == first) fault(expected);
  }

  const char *begin_, *p_, *end_;
  const std::string& place_;
  std::string open_, scratch_;
};

}  // namespace

JsonField read_json_field(std::string_view line, std::string_view key, const std::string& place) {
  return JsonReader(line, place).field(key);
}

}  // namespace ziggurat
