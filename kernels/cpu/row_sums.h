// Sums inside CPU kernels whose order is fixed: never a function of the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

// Sum of term(j) for j in [0, n) on one thread. A floating-point sum only vectorises if the compiler may
// split it into partial sums, which this loop alone allows.
template <class A, class F>
A sum_of(int64_t n, const F& term) {
  A total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < n; ++j) total += term(j);
  return total;
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
