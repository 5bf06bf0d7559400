#include <array>
#include <cmath>

#include <fmt/format.h>

#include "config/number.h"
#include <ziggurat/config/units.h>
#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

int64_t parse_whole(std::string_view text, Unit unit, const char* expected) {
  const ParsedNumber number = parse_number(text, unit);
  const std::string_view shown = text.substr(0, 60);
  check(number.problem.empty(), ErrorKind::config, "expected {}, got '{}': {}", expected, shown,
        number.problem);
  check(number.whole.has_value(), ErrorKind::config, "expected {}, got '{}': it is not whole or above 2^63",
        expected, shown);
  return *number.whole;
}

std::string three_digits(double value) {
  // {:.3g} would write 1000 as 1e+03.
  const double size = std::abs(value);
  std::string text = fmt::format("{:.{}f}", value, size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
  if (text.find('.') != std::string::npos) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return text;
}

// The first suffix that keeps the number below `base` after rounding.
template <size_t N>
std::string scaled(double value, double base, const std::array<const char*, N>& names) {
  if (!std::isfinite(value)) return fmt::format("{}", value);
  size_t i = 0;
  while (i + 1 < N && std::abs(value) >= base - 0.5) {
    value /= base;
    ++i;
  }
  return three_digits(value) + names[i];
}

}  // namespace

int64_t parse_count(std::string_view text) {
  return parse_whole(text, Unit::count, "a whole count such as 300B, 375M or 1_000");
}

int64_t parse_bytes(std::string_view text) {
  return parse_whole(text, Unit::bytes, "a whole number of bytes such as 2GiB, 512MiB or 1GB");
}

double parse_duration(std::string_view text) {
  const ParsedNumber number = parse_number(text, Unit::seconds);
  check(number.problem.empty(), ErrorKind::config,
        "expected a duration such as 36h, 90m or 1h30m, got '{}': {}", text.substr(0, 60), number.problem);
  return number.real;
}

std::string format_count(double count) { return scaled(count, 1000.0, std::array{"", "K", "M", "B", "T"}); }

std::string format_bytes(double bytes) {
  return scaled(bytes, 1024.0, std::array{"B", "KiB", "MiB", "GiB", "TiB"});
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || std::abs(seconds) > 1e15) return fmt::format("{}s", seconds);
  if (seconds < 0) return "-" + format_duration(-seconds);
  if (seconds < 0.9995) return seconds == 0 ? "0s" : three_digits(seconds * 1000) + "ms";
  const int64_t s = std::llround(seconds);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
  return fmt::format("{}d{:02}h", s / 86400, s % 86400 / 3600);
}

}  // namespace ziggurat
