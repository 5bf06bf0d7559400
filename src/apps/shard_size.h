#pragma once

#include <cstdint>
#include <string>

#include <ziggurat/config/units.h>
#include <ziggurat/core/error.h>

namespace ziggurat::apps {

// Of --shard-size, in bytes; throws Error where it is no number of bytes or makes a file of every row.
inline int64_t parse_shard_size(const std::string& text) {
  const int64_t bytes = parse_bytes(text);
  check(bytes >= 1000, ErrorKind::argument, "--shard-size: expected at least 1KB, got {}", text);
  return bytes;
}

}  // namespace ziggurat::apps
