// Numbers as people write them in a config or read them in a log: 300B tokens, 2GiB, 36h.
//   counts     K, M, B, T: powers of 1000 (300B = 300e9 tokens)
//   bytes      B, KB, MB, GB, TB: powers of 1000; KiB, MiB, GiB, TiB: powers of 1024
//   durations  ms, s, m, h, d, from large to small when joined: 1h30m, 6d04h; a bare number is seconds
// Digits may be grouped by single underscores (1_000). Leading zeros (012), NaN and Inf are refused.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <ziggurat/core/amounts.h>

namespace ziggurat {

// Each throws Error(config), naming what was expected. A count or a number of bytes must come out whole:
// 1.5K is 1500, 1.2345K is an error.
int64_t parse_count(std::string_view text);
int64_t parse_bytes(std::string_view text);
double parse_duration(std::string_view text);  // seconds

}  // namespace ziggurat
