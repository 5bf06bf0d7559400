// Functions that gcc vectorises, for the inner loops of CPU kernels. float: polynomials good to about 1 ulp
// of the result's scale; double: the C library.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace ziggurat::kernels {

// e^x. x = n ln2 + r with |r| <= ln2/2; e^r by the polynomial of degree 5 that is nearest to it (relative error
// below 2^-23.3), scaled by 2^n. Clamped to the finite range, so -inf gives (almost) 0; NaN stays NaN.
inline float vexp(float x) {
  // At 2^23 and beyond a float has no fraction: adding this rounds, and leaves n + 127 in the low bits.
  constexpr float kRound = 0x1.8p23f + 127;
  const float above = x < -87.3f ? -87.3f : x;
  const float clamped = above > 88.3f ? 88.3f : above;
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

// tanh(x) = 1 - 2 / (e^2x + 1): absolute error of a few ulp of 1, which is what GELU needs.
inline float vtanh(float x) { return 1.0f - 2.0f / (vexp(2.0f * x) + 1.0f); }
inline double vtanh(double x) { return std::tanh(x); }

}  // namespace ziggurat::kernels
