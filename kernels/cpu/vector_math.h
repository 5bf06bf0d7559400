// Functions that gcc vectorises, for the inner loops of CPU kernels. float: polynomials good to about 1 ulp
// of the result's scale; double: the C library.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace ziggurat::kernels {

// e^x for x <= 88. x = n ln2 + r with |r| <= ln2/2; e^r by the polynomial of degree 5 that is nearest to it
// (relative error below 2^-23.3), scaled by 2^n. Clamped from below, so -inf gives (almost) 0; NaN stays NaN.
// No clamp from above: of two, gcc 12 makes a tree of masks.
inline float vexp(float x) {
  // At 2^23 and beyond a float has no fraction: adding this rounds, and leaves n + 127 in the low bits.
  constexpr float kRound = 0x1.8p23f + 127;
  const float clamped = x < -87.3f ? -87.3f : x;
  const float rounded = clamped * 1.44269504f + kRound;
  const float n = rounded - kRound;
  const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;  // ln2 in two parts
  float p = 8.29026439e-3f;
  p = p * r + 4.18980293e-2f;
  p = p * r + 1.66676375e-1f;
  p = p * r + 4.99991488e-1f;
  p = p * r + 9.99999707e-1f;
  p = p * r + 1.0f;
  return p * std::bit_cast<float>(std::bit_cast<uint32_t>(rounded) << 23);
}
inline double vexp(double x) { return std::exp(x); }

// 1 / (1 + e^-x)
template <class A>
inline A sigmoid(A x) {
  const A e = vexp(-std::abs(x));
  return (x < 0 ? e : A(1)) / (A(1) + e);
}

}  // namespace ziggurat::kernels
