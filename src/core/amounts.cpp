#include <array>
#include <cmath>
#include <cstdint>

#include <fmt/format.h>

#include <ziggurat/core/amounts.h>

namespace ziggurat {
namespace {

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

std::string format_count(double count) { return scaled(count, 1000.0, std::array{"", "K", "M", "B", "T"}); }

std::string format_bytes(double bytes) {
  return scaled(bytes, 1024.0, std::array{"B", "KiB", "MiB", "GiB", "TiB"});
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || std::abs(seconds) > 1e15) return fmt::format("{}s", seconds);
  if (seconds < 0) return fmt::format("-{}", format_duration(-seconds));
  if (seconds < 0.9995) return seconds == 0 ? "0s" : three_digits(seconds * 1000) + "ms";
  const int64_t s = std::llround(seconds);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
  return fmt::format("{}d{:02}h", s / 86400, s % 86400 / 3600);
}

}  // namespace ziggurat
