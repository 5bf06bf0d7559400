#include "eval/python_text.h"

#include <algorithm>
#include <array>
#include <clocale>
#include <cwctype>
#include <numeric>
#include <random>

#include <nlohmann/json.hpp>

#include <ziggurat/core/error.h>

namespace ziggurat::eval {

namespace {

bool starts_character(char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; }

// Of one well-formed character.
uint32_t code_point(std::string_view character) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(character[i])); };
  switch (character.size()) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1f) << 6 | (byte(1) & 0x3f);
    case 3:
      return (byte(0) & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
  }
}

void append_utf8(uint32_t c, std::string& out) {
  const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) return put(c);
  if (c < 0x800) return put(0xc0 | c >> 6), put(0x80 | (c & 0x3f));
  if (c < 0x10000) return put(0xe0 | c >> 12), put(0x80 | (c >> 6 & 0x3f)), put(0x80 | (c & 0x3f));
  put(0xf0 | c >> 18), put(0x80 | (c >> 12 & 0x3f)), put(0x80 | (c >> 6 & 0x3f)), put(0x80 | (c & 0x3f));
}

std::string_view last_character(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && text.size() - begin < 4 && !starts_character(text[begin])) --begin;
  return text.substr(begin);
}

std::string_view first_character(std::string_view text) {
  size_t end = 1;
  while (end < text.size() && end < 4 && !starts_character(text[end])) ++end;
  return text.substr(0, end);
}

bool is_space(uint32_t c) {
  return (0x09 <= c && c <= 0x0d) || (0x1c <= c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (0x2000 <= c && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

// Reads a Python list of string literals.
class ListReader {
 public:
  ListReader(std::string_view text, const std::string& place) : text_(text), place_(place) {}

  std::vector<std::string> read() {
    std::vector<std::string> items;
    expect('[');
    skip_spaces();
    while (!at_end() && text_[next_] != ']') {
      items.push_back(literal());
      skip_spaces();
      if (!at_end() && text_[next_] != ']') expect(',');
      skip_spaces();
    }
    expect(']');
    skip_spaces();
    if (!at_end()) refuse("more text behind the list");
    return items;
  }

 private:
  bool at_end() const { return next_ == text_.size(); }
  [[noreturn]] void refuse(const char* what) const {
    fail(ErrorKind::data, "{}: expected a list of strings like ['a', \"b\"], got {} at character {} of {}",
         place_, what, next_ + 1, text_.size());
  }
  void skip_spaces() {
    while (!at_end() && is_space(static_cast<uint8_t>(text_[next_]))) ++next_;
  }
  void expect(char c) {
    skip_spaces();
    if (at_end() || text_[next_] != c) refuse("something else");
    ++next_;
  }

  std::string literal() {
    const char quote = text_[next_];
    if (quote != '\'' && quote != '"') refuse("no quote");
    ++next_;
    std::string value;
    while (!at_end() && text_[next_] != quote) {
      if (text_[next_] == '\\') {
        escape(value);
      } else {
        value += text_[next_++];
      }
    }
    if (at_end()) refuse("a string without end");
    ++next_;
    return value;
  }

  void escape(std::string& value) {
    constexpr std::string_view kNames = "\\'\"abfnrtv", kValues = "\\'\"\a\b\f\n\r\t\v";
    if (++next_ == text_.size()) refuse("a string without end");
    const char name = text_[next_++];
    if (const size_t i = kNames.find(name); i != std::string_view::npos) {
      value += kValues[i];
    } else if (name == 'x' || name == 'u' || name == 'U') {
      append_utf8(hex(name == 'x' ? 2 : name == 'u' ? 4 : 8), value);
    } else {  // as Python keeps what it does not know
      value += '\\', value += name;
    }
  }

  uint32_t hex(size_t digits) {
    uint32_t value = 0;
    for (size_t i = 0; i < digits; ++i, ++next_) {
      constexpr std::string_view kDigits = "0123456789abcdef";
      const size_t digit =
          at_end() ? std::string_view::npos
                   : kDigits.find(static_cast<char>(std::tolower(static_cast<unsigned char>(text_[next_]))));
      if (digit == std::string_view::npos) refuse("a broken \\x or \\u");
      value = value << 4 | static_cast<uint32_t>(digit);
    }
    if (value > 0x10ffff || (0xd800 <= value && value <= 0xdfff)) refuse("no character");
    return value;
  }

  std::string_view text_;
  const std::string& place_;
  size_t next_ = 0;
};

// CPython's random.seed(int): init_by_array of Matsumoto and Nishimura (2002), as a seed sequence of
// std::mt19937, which takes its state from generate() as it is.
class PythonSeed {
 public:
  using result_type = uint32_t;
  explicit PythonSeed(uint32_t key) : key_(key) {}

  template <class Iterator>
  void generate(Iterator begin, Iterator end) const {
    const auto n = static_cast<uint32_t>(end - begin);
    const auto at = [&](uint32_t i) -> decltype(auto) { return begin[i]; };
    const auto mixed = [&](uint32_t i, uint32_t factor) -> uint32_t {
      const auto before = static_cast<uint32_t>(at(i - 1));
      return static_cast<uint32_t>(at(i)) ^ ((before ^ (before >> 30)) * factor);
    };
    at(0) = 19650218u;
    for (uint32_t i = 1; i < n; ++i) {
      const auto before = static_cast<uint32_t>(at(i - 1));
      at(i) = 1812433253u * (before ^ (before >> 30)) + i;
    }
    uint32_t i = 1;
    const auto wrap = [&] {
      if (++i == n) at(0) = at(n - 1), i = 1;
    };
    for (uint32_t k = 0; k < n; ++k, wrap()) at(i) = mixed(i, 1664525u) + key_;
    for (uint32_t k = 0; k + 1 < n; ++k, wrap()) at(i) = mixed(i, 1566083941u) - i;
    at(0) = 0x80000000u;
  }

 private:
  uint32_t key_;
};

}  // namespace

std::optional<std::pair<std::string, std::string>> split_last_word(std::string_view text) {
  const size_t space = text.rfind(' ');
  if (space == std::string_view::npos) return std::nullopt;
  return std::pair(std::string(text.substr(0, space)), std::string(text.substr(space + 1)));
}

size_t code_points(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), starts_character));
}

std::string_view rstrip(std::string_view text) {
  while (!text.empty()) {
    const std::string_view last = last_character(text);
    if (!is_space(code_point(last))) break;
    text.remove_suffix(last.size());
  }
  return text;
}

std::string_view strip(std::string_view text) {
  while (!text.empty()) {
    const std::string_view first = first_character(text);
    if (!is_space(code_point(first))) break;
    text.remove_prefix(first.size());
  }
  return rstrip(text);
}

std::string lower(std::string_view text) {
  static const locale_t unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  std::string out;
  while (!text.empty()) {
    const std::string_view character = first_character(text);
    const uint32_t c = code_point(character);
    const bool upper = unicode != nullptr && c >= 0x80 && iswupper_l(static_cast<wint_t>(c), unicode);
    if (c < 0x80) {
      out += static_cast<char>('A' <= c && c <= 'Z' ? c + 32 : c);
    } else if (upper) {
      append_utf8(static_cast<uint32_t>(towlower_l(static_cast<wint_t>(c), unicode)), out);
    } else {
      out += character;  // also what is no UTF-8
    }
    text.remove_prefix(character.size());
  }
  return out;
}

std::string without_punctuation(std::string_view text) {
  std::string out;
  std::copy_if(text.begin(), text.end(), std::back_inserter(out), [](char c) {
    return !(('!' <= c && c <= '/') || (':' <= c && c <= '@') || ('[' <= c && c <= '`') ||
             ('{' <= c && c <= '~'));
  });
  return out;
}

std::vector<std::string> parse_string_list(std::string_view text, const std::string& place) {
  return ListReader(text, place).read();
}

std::string json_dumps(std::string_view text) {
  return nlohmann::json(std::string(text)).dump(-1, ' ', /*ensure_ascii=*/true);
}

std::vector<std::vector<std::string>> parse_tsv(std::string_view text, const std::string& place) {
  std::vector<std::vector<std::string>> rows;
  size_t i = 0;
  const auto ends_field = [&] { return text[i] == '\t' || text[i] == '\n' || text[i] == '\r'; };
  while (i < text.size()) {
    std::vector<std::string> row;
    for (bool more = true; more;) {
      std::string field;
      if (i < text.size() && text[i] == '"') {
        const size_t opened = i++;
        while (i < text.size() && (text[i] != '"' || (i + 1 < text.size() && text[i + 1] == '"'))) {
          if (text[i] == '"') ++i;
          field += text[i++];
        }
        check(i < text.size(), ErrorKind::data, "{}: the quote at byte {} is never closed: the file is cut",
              place, opened);
        ++i;
      }
      while (i < text.size() && !ends_field()) field += text[i++];
      more = i < text.size() && text[i] == '\t';
      if (more) ++i;
      row.push_back(std::move(field));
    }
    if (i < text.size() && text[i] == '\r') ++i;
    if (i < text.size() && text[i] == '\n') ++i;
    if (row.size() > 1 || !row[0].empty()) rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<size_t> shuffled(size_t n, uint32_t seed) {
  PythonSeed seeds(seed);
  std::mt19937 bits(seeds);
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = n; i-- > 1;) {
    const int width = std::bit_width(i + 1);  // Random._randbelow(i + 1)
    size_t j;
    do {
      j = static_cast<size_t>(bits() >> (32 - width));
    } while (j > i);
    std::swap(order[i], order[j]);
  }
  return order;
}

}  // namespace ziggurat::eval
