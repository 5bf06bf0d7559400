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

}  // namespace ziggurat
