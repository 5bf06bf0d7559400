// What every op that looks something up by position checks at its door.
#pragma once

#include <cstdint>

#include <ziggurat/core/error.h>
#include <ziggurat/runtime/device.h>

namespace ziggurat::ops {

// positions [n], or null: what row i's place in its sequence gives. Where they lie in a device's memory,
// whoever put them there has looked at them.
inline void check_positions(const char* op, Device device, const int32_t* positions, int64_t n,
                            int64_t limit) {
  if (device != Device::cpu) return;
  for (int64_t i = 0; positions != nullptr && i < n; ++i) {
    check(0 <= positions[i] && positions[i] < limit, ErrorKind::argument,
          "[{}] position {} of row {} is outside [0, {})", op, positions[i], i, limit);
  }
}

}  // namespace ziggurat::ops
