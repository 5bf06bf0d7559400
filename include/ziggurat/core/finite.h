// Is every number finite?
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace ziggurat {

// Of values[begin, end), float, double or bf16. By bits: comparing exponents takes vector registers, and no
// compiler flag can reason it away.
template <class T>
bool all_finite(const T* values, int64_t begin, int64_t end) {
  using Bits =
      std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
  const Bits exponent = [] {
    if constexpr (sizeof(T) == 2)
      return uint16_t{0x7f80};  // of bf16
    else
      return std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
  }();
  Bits bad = 0;
  for (int64_t i = begin; i < end; ++i) {
    bad |= static_cast<Bits>((std::bit_cast<Bits>(values[i]) & exponent) == exponent);
  }
  return bad == 0;
}

}  // namespace ziggurat
