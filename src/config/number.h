// Exact reading of numbers with units; what parse_count and the fields of a config share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <ziggurat/config/fields.h>

namespace ziggurat {

struct ParsedNumber {
  std::optional<int64_t> whole;  // when the value is whole and fits 64 bits
  double real = 0.0;
  std::string problem;  // why it isn't a number; empty when it is
};

// Computed exactly (mantissa times factor over a power of ten), so that 1.5K is whole and 1.2345K is not.
ParsedNumber parse_number(std::string_view text, Unit unit);

// The shortest exact text that parse_number reads back: 300B, 2GiB, 1d12h; plain digits where no unit fits.
std::string number_text(int64_t value, Unit unit);
std::string number_text(double value, Unit unit);

}  // namespace ziggurat
