#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>

namespace ziggurat::kernels {

// out [n] = or += c x [n]
template <class T>
void write_scaled(const T* x, Accum<T> c, T* out, bool accumulate, int64_t n) {
  using A = Accum<T>;
  for (int64_t j = 0; j < n; ++j) out[j] = T(accumulate ? A(out[j]) + c * A(x[j]) : c * A(x[j]));
}

}  // namespace ziggurat::kernels
