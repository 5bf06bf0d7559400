// Reductions over one contiguous row that gcc vectorises. `omp simd` lets it reorder a sum into the lanes of
// a register (no threads are involved): the order depends on n and the build only. Not inlined: inside a
// larger loop nest gcc 12 gives the vectorisation up, which costs a factor of ten.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kernels/cpu/vector_math.h>

namespace ziggurat::kernels {

// -infinity for n = 0. NaNs are passed over: the sum of exponentials shows them. Maxima of two registers,
// since each comparison waits for the last of its register.
template <class A>
[[gnu::noinline]] A row_max(const A* x, int64_t n) {
  constexpr int64_t kLanes = 32;
  A lanes[kLanes];
  std::fill_n(lanes, kLanes, -std::numeric_limits<A>::infinity());
  const auto take = [&](A value, int64_t lane) { lanes[lane] = value > lanes[lane] ? value : lanes[lane]; };
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) take(x[j + lane], lane);
  }
  for (int64_t lane = 0; j < n; ++j, ++lane) take(x[j], lane);
  A max = -std::numeric_limits<A>::infinity();
#pragma omp simd reduction(max : max)
  for (int64_t lane = 0; lane < kLanes; ++lane) max = lanes[lane] > max ? lanes[lane] : max;
  return max;
}

// y[j] = e^(x[j] - shift), returns their sum; y may be x.
template <class A>
[[gnu::noinline]] A exp_row(const A* x, A shift, A* y, int64_t n) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) {
    const A e = vexp(x[j] - shift);
    y[j] = e;
    sum += e;
  }
  return sum;
}

// The sum of e^(x[j] - shift).
template <class A>
[[gnu::noinline]] A exp_sum(const A* x, A shift, int64_t n) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) sum += vexp(x[j] - shift);
  return sum;
}

template <class A, class X, class Y>
[[gnu::noinline]] A dot_row(const X* x, const Y* y, int64_t n) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) sum += A(x[j]) * A(y[j]);
  return sum;
}

}  // namespace ziggurat::kernels
