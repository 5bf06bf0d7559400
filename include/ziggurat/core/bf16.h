// bfloat16 as a storage type: the upper half of a float. Arithmetic is done in float.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace ziggurat {

struct bf16 {
  uint16_t bits = 0;

  bf16() = default;
  // Round to nearest, ties to even; a NaN stays a (quiet) NaN.
  explicit bf16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const uint32_t nan = (u >> 16) | 0x40u;
    bits = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
  }
  explicit bf16(double value) : bf16(static_cast<float>(value)) {}
  operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};
static_assert(sizeof(bf16) == 2 && std::is_trivially_copyable_v<bf16>);

// The type in which values of storage type T are summed and in which 1-D parameters and gradients are kept.
template <class T>
using Accum = std::conditional_t<std::is_same_v<T, double>, double, float>;

}  // namespace ziggurat
