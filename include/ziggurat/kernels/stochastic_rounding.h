// f32 to bf16 so that what is lost is right on average: sums of many small changes, as those of moments and
// weights, would otherwise never leave a bf16 (Gupta et al. 2015, arXiv 1502.02551).
#pragma once

#include <bit>
#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/core/philox.h>

namespace ziggurat::kernels {

// One of the two bf16 between which x lies, the farther one as often as x is near it; x itself if it is one.
// Of `random` only the lower 16 bits count, all equally likely.
constexpr bf16 round_stochastically(float x, uint32_t random) {
  bf16 result;
  result.bits = static_cast<uint16_t>((std::bit_cast<uint32_t>(x) + (random & 0xffffu)) >> 16);
  return result;
}

// What an element's three numbers are rounded with: four times 16 bits an element, of which two share a
// block.
struct RoundingBits {
  uint32_t master, moment1, moment2;
};
constexpr RoundingBits rounding_bits(uint32_t first, uint32_t second) { return {second, first, first >> 16}; }

}  // namespace ziggurat::kernels
