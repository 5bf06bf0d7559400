#include "data/numpy_random.h"

namespace ziggurat {

NumpyRandomState::NumpyRandomState(uint32_t seed) {
  state_[0] = seed;
  for (size_t i = 1; i < kSize; ++i) {
    state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + static_cast<uint32_t>(i);
  }
}

void NumpyRandomState::refill() {
  constexpr size_t kShift = 397;
  constexpr uint32_t kUpper = 0x80000000u, kTwist = 0x9908b0dfu;
  for (size_t i = 0; i < kSize; ++i) {
    const uint32_t y = (state_[i] & kUpper) | (state_[(i + 1) % kSize] & ~kUpper);
    state_[i] = state_[(i + kShift) % kSize] ^ (y >> 1) ^ (y & 1 ? kTwist : 0);
  }
  next_ = 0;
}

uint32_t NumpyRandomState::next() {
  if (next_ == kSize) refill();
  uint32_t y = state_[next_++];  // tempering
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

uint32_t NumpyRandomState::up_to(uint32_t highest) {
  if (highest == 0) return 0;  // numpy draws nothing here
  const uint32_t mask = 0xffffffffu >> std::countl_zero(highest);
  uint32_t value;
  do {
    value = next() & mask;
  } while (value > highest);
  return value;
}

}  // namespace ziggurat
