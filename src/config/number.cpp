#include "config/number.h"

#include <array>
#include <charconv>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>

#include <fmt/format.h>

namespace ziggurat {
namespace {

struct Suffix {
  const char* text;
  int64_t factor;  // value = number * factor / divisor
  int64_t divisor = 1;
};

constexpr int64_t kKilo = 1000, kKibi = 1024;
constexpr int64_t kDay = 86400, kHour = 3600, kMinute = 60;
constexpr std::array kCount = {Suffix{"K", kKilo}, Suffix{"M", kKilo* kKilo},
                               Suffix{"B", kKilo* kKilo* kKilo}, Suffix{"T", kKilo* kKilo* kKilo* kKilo}};
constexpr std::array kBytes = {Suffix{"B", 1},
                               Suffix{"KB", kKilo},
                               Suffix{"MB", kKilo* kKilo},
                               Suffix{"GB", kKilo* kKilo* kKilo},
                               Suffix{"TB", kKilo* kKilo* kKilo* kKilo},
                               Suffix{"KiB", kKibi},
                               Suffix{"MiB", kKibi* kKibi},
                               Suffix{"GiB", kKibi* kKibi* kKibi},
                               Suffix{"TiB", kKibi* kKibi* kKibi* kKibi}};
constexpr std::array kSeconds = {Suffix{"d", kDay}, Suffix{"h", kHour}, Suffix{"m", kMinute}, Suffix{"s", 1},
                                 Suffix{"ms", 1, 1000}};

std::span<const Suffix> suffixes(Unit unit) {
  switch (unit) {
    case Unit::none:
      return {};
    case Unit::bytes:
      return kBytes;
    case Unit::seconds:
      return kSeconds;
    default:
      return kCount;
  }
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// A cursor over the text; each take_* consumes what it accepts.
struct Cursor {
  std::string_view rest;

  char peek() const { return rest.empty() ? '\0' : rest.front(); }
  bool take(char c) {
    if (peek() != c) return false;
    rest.remove_prefix(1);
    return true;
  }
  // Digits, single underscores between them dropped.
  std::string take_digits() {
    std::string digits;
    while (!rest.empty()) {
      const bool grouping = rest.front() == '_' && !digits.empty() && rest.size() > 1 && is_digit(rest[1]);
      if (!grouping && !is_digit(rest.front())) break;
      if (!grouping) digits += rest.front();
      rest.remove_prefix(1);
    }
    return digits;
  }
  std::string_view take_letters() {
    size_t n = 0;
    while (n < rest.size() && is_letter(rest[n])) ++n;
    const std::string_view letters = rest.substr(0, n);
    rest.remove_prefix(n);
    return letters;
  }
};

struct Decimal {
  std::string digits;  // without leading or trailing zeros; empty = 0
  int64_t exponent = 0;
};

// digits * 10^exponent * factor / divisor, when that is whole and fits 63 bits.
std::optional<int64_t> exact(const Decimal& decimal, const Suffix& suffix) {
  if (decimal.digits.empty()) return 0;
  if (decimal.digits.size() > 19 || decimal.exponent > 18 || decimal.exponent < -18) return std::nullopt;
  uint64_t value = 0;
  std::from_chars(decimal.digits.data(), decimal.digits.data() + decimal.digits.size(), value);
  uint64_t factor = static_cast<uint64_t>(suffix.factor);
  for (uint64_t divisor :
       {decimal.exponent < 0 ? static_cast<uint64_t>(std::pow(10.0, -decimal.exponent)) : 1,
        static_cast<uint64_t>(suffix.divisor)}) {
    const uint64_t in_value = std::gcd(value, divisor);
    value /= in_value;
    divisor /= in_value;
    const uint64_t in_factor = std::gcd(factor, divisor);
    factor /= in_factor;
    if (divisor != in_factor) return std::nullopt;
  }
  for (int64_t i = 0; i < decimal.exponent; ++i) {
    if (__builtin_mul_overflow(value, uint64_t{10}, &value)) return std::nullopt;
  }
  if (__builtin_mul_overflow(value, factor, &value) || value > uint64_t{INT64_MAX}) return std::nullopt;
  return static_cast<int64_t>(value);
}

Decimal normalise(const std::string& whole, const std::string& fraction, int64_t exponent) {
  Decimal out{whole + fraction, exponent - static_cast<int64_t>(fraction.size())};
  out.digits.erase(0, std::min(out.digits.find_first_not_of('0'), out.digits.size()));
  while (!out.digits.empty() && out.digits.back() == '0') {
    out.digits.pop_back();
    ++out.exponent;
  }
  return out;
}

struct Component {
  ParsedNumber number;
  int64_t factor = 0;  // of its suffix; 0 = none was written
};

// One unsigned number and its suffix. `first`: a leading zero is only allowed in the later parts of 6d04h.
Component take_component(Cursor& cursor, Unit unit, bool first) {
  Component out;
  const auto bad = [&](std::string why) {
    out.number.problem = std::move(why);
    return out;
  };
  const std::string whole = cursor.take_digits();
  std::string fraction, exponent;
  if (first && whole.size() > 1 && whole.front() == '0') return bad("it has a leading zero");
  if (cursor.take('.')) fraction = cursor.take_digits();
  if (whole.empty() && fraction.empty()) return bad("it is not a number");
  if (cursor.take('e') || cursor.take('E')) {
    if (cursor.take('-')) {
      exponent.push_back('-');
    } else {
      cursor.take('+');
    }
    const std::string digits = cursor.take_digits();
    if (digits.empty() || digits.size() > 6) return bad("its exponent is not a small number");
    exponent += digits;
  }
  while (cursor.take(' ')) {
  }
  const std::string_view letters = cursor.take_letters();
  Suffix suffix{"", 1};
  if (!letters.empty()) {
    const Suffix* found = nullptr;
    for (const Suffix& candidate : suffixes(unit)) {
      if (letters == candidate.text) found = &candidate;
    }
    if (found == nullptr) return bad(fmt::format("'{}' is not a unit here", letters.substr(0, 20)));
    suffix = *found;
    out.factor = suffix.divisor == 1 ? suffix.factor : -1;  // below every whole one
  }
  const std::string plain = fmt::format("{}.{}e{}", whole.empty() ? "0" : whole,
                                        fraction.empty() ? "0" : fraction, exponent.empty() ? "0" : exponent);
  double value = 0.0;
  const auto [end, error] = std::from_chars(plain.data(), plain.data() + plain.size(), value);
  if (error != std::errc{} || end != plain.data() + plain.size()) return bad("it does not fit a double");
  int64_t power = 0;
  std::from_chars(exponent.data(), exponent.data() + exponent.size(), power);
  out.number.whole = exact(normalise(whole, fraction, power), suffix);
  out.number.real = out.number.whole
                        ? static_cast<double>(*out.number.whole)
                        : value * static_cast<double>(suffix.factor) / static_cast<double>(suffix.divisor);
  if (!std::isfinite(out.number.real)) return bad("it does not fit a double");
  return out;
}

// Large to small; every part but the only one needs its suffix.
ParsedNumber take_duration(Cursor& cursor) {
  Component sum = take_component(cursor, Unit::seconds, true);
  int64_t last = sum.factor;
  bool exact_sum = sum.number.whole.has_value();
  int64_t total = sum.number.whole.value_or(0);
  while (sum.number.problem.empty() && !cursor.rest.empty()) {
    const Component part = take_component(cursor, Unit::seconds, false);
    if (!part.number.problem.empty()) return part.number;
    if (last == 0 || part.factor == 0 || part.factor >= last) {
      sum.number.problem = "its parts are not in the order d, h, m, s, ms";
      break;
    }
    last = part.factor;
    sum.number.real += part.number.real;
    exact_sum = exact_sum && part.number.whole.has_value() &&
                !__builtin_add_overflow(total, part.number.whole.value_or(0), &total);
  }
  sum.number.whole = exact_sum ? std::optional(total) : std::nullopt;
  return sum.number;
}

std::string duration_text(int64_t seconds) {
  std::string text;
  for (const Suffix& part : std::span(kSeconds).first(4)) {
    if (const int64_t n = seconds / part.factor; n > 0) text += fmt::format("{}{}", n, part.text);
    seconds %= part.factor;
  }
  return text;
}

}  // namespace

ParsedNumber parse_number(std::string_view text, Unit unit) {
  Cursor cursor{text};
  const bool negative = cursor.take('-');
  if (!negative) cursor.take('+');
  ParsedNumber number =
      unit == Unit::seconds ? take_duration(cursor) : take_component(cursor, unit, true).number;
  if (number.problem.empty() && !cursor.rest.empty()) number.problem = "it is not a number";
  if (negative) {
    if (number.whole) number.whole = -*number.whole;
    number.real = -number.real;
  }
  return number;
}

std::string number_text(int64_t value, Unit unit) {
  if (value <= 0) return fmt::format("{}", value);
  if (unit == Unit::seconds) return duration_text(value);
  std::string text = fmt::format("{}", value);
  for (const Suffix& suffix : suffixes(unit)) {
    if (suffix.factor == 1 || value < suffix.factor) continue;
    // One decimal at most, and only where it shortens: 1.5B, but 1_234_567 stays as it is.
    const int64_t tenths = value / suffix.factor * 10 + value % suffix.factor * 10 / suffix.factor;
    const bool is_exact = value % suffix.factor * 10 % suffix.factor == 0;
    if (!is_exact) continue;
    const std::string candidate = tenths % 10 == 0
                                      ? fmt::format("{}{}", tenths / 10, suffix.text)
                                      : fmt::format("{}.{}{}", tenths / 10, tenths % 10, suffix.text);
    if (candidate.size() < text.size()) text = candidate;
  }
  return text;
}

std::string number_text(double value, Unit unit) {
  const bool whole = unit != Unit::none && value == std::floor(value) && std::abs(value) < 0x1p53;
  return whole ? number_text(static_cast<int64_t>(value), unit) : fmt::format("{}", value);
}

}  // namespace ziggurat
