// Not in the header, so that every kernel's use of one is the same function (which is how lanes find each
// other).
#include <cuda_runtime.h>

#include "tests/emulation/accesses.h"

namespace ziggurat::emulation {

uint64_t shuffle(const uint64_t* values, uint32_t mask, int lane, uint64_t source) {
  if ((mask >> source & 1u) == 0) {
    throw KernelError("a shuffle: lane " + std::to_string(lane) + " reads lane " + std::to_string(source) +
                      ", which takes no part in it");
  }
  return values[source];
}

uint64_t ballot(const uint64_t* values, uint32_t, int, uint64_t) {
  uint64_t bits = 0;
  for (int lane = 0; lane < 32; ++lane) bits |= values[lane] << lane;
  return bits;
}

uint64_t match_any(const uint64_t* values, uint32_t mask, int lane, uint64_t) {
  uint64_t bits = 0;
  for (int other = 0; other < 32; ++other) {
    if ((mask >> other & 1u) != 0 && values[other] == values[lane]) bits |= uint64_t{1} << other;
  }
  return bits;
}

}  // namespace ziggurat::emulation
