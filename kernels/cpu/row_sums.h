// Sums inside CPU kernels whose order is fixed: never a function of the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kernels/cpu/stream_rows.h>

#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

// Sum of term(j) for j in [0, n) on one thread, in partial sums that fill vector registers. Written out: what
// gcc 12 makes of a plain loop's reduction by `omp simd` depends on the dtype and on what it was inlined
// into. `term` by value: so that its members stay in registers.
template <class A, class F>
[[gnu::noinline]] A sum_of(int64_t n, const F term) {
  constexpr int64_t kLanes = 32;
  A lanes[kLanes] = {};
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(j + lane);
  }
  A rest = 0;
  for (; j < n; ++j) rest += term(j);
  typename Lanes<A>::Vector sum{}, next;  // one lane after the other would take as long as a row
  for (int64_t lane = 0; lane < kLanes; lane += Lanes<A>::kCount) {
    load_lanes(lanes + lane, next);
    sum += next;
  }
  return sum_of_lanes<A>(sum) + rest;
}

// out [cols] += the sum over the leading dim of partial [blocks, cols], block by block in order.
template <class A>
void add_partial_sums(const A* partial, int64_t blocks, int64_t cols, A* out) {
  parallel_for_blocks(cols, 256, [=](int64_t begin, int64_t end) {
    for (int64_t b = 0; b < blocks; ++b) {
      for (int64_t j = begin; j < end; ++j) out[j] += partial[b * cols + j];
    }
  });
}

}  // namespace ziggurat::kernels
