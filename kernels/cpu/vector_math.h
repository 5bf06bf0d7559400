// Functions that gcc vectorises, for the inner loops of CPU kernels. float: polynomials good to about 1 ulp
// of the result's scale; double: the C library.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace ziggurat::kernels {

// e^x. x = n ln2 + r with |r| <= ln2/2, Taylor to r^6 (next term below 2^-24), scaled by 2^n. Clamped to the
// finite range, so -inf gives (almost) 0; NaN stays NaN.
inline float vexp(float x) {
  const float clamped = x < -87.3f ? -87.3f : (x > 88.3f ? 88.3f : x);
  const float n = std::nearbyint(clamped * 1.44269504f);
  const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;  // ln2 in two parts
  float p = 1.3888889e-3f;
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666667e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float scale = std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  return p * scale;
}
inline double vexp(double x) { return std::exp(x); }

// tanh(x) = 1 - 2 / (e^2x + 1): absolute error of a few ulp of 1, which is what GELU needs.
inline float vtanh(float x) { return 1.0f - 2.0f / (vexp(2.0f * x) + 1.0f); }
inline double vtanh(double x) { return std::tanh(x); }

}  // namespace ziggurat::kernels
