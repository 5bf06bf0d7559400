// Rows that several rows of a batch are added to, without atomics: table[key of row i] += x[i], or
// -= *minus x[i] where `minus`, [1] in the device's memory, is given. The first row of each key adds all rows
// of that key, in order. It finds them by reading all keys, rows^2 comparisons in all: of 8192 rows 268 MB
// from the L2 cache, as long as an embedding's gradients themselves take.
#pragma once

#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

namespace ziggurat::kernels {

constexpr int kThreadsOfAddRows = 128;

// Which row of a table row i of the batch belongs to: keys[i], or i % period without keys. Rows whose key is
// `none` belong to no row.
struct Keys {
  const int32_t* keys;
  unsigned period = 1;
  int64_t none = -1;
  __device__ int64_t operator[](int64_t i) const {
    return keys == nullptr ? int64_t{static_cast<unsigned>(i) % period} : int64_t{keys[i]};
  }
};

// Block (i, tile): if row i is the first of its key, all rows of that key; a tile of the block's threads
// times N columns.
template <class T, int N>
__global__ void __launch_bounds__(kThreadsOfAddRows)
    add_rows_kernel(Keys keys, int64_t rows, int64_t cols, const T* x, const double* minus, float* table) {
  constexpr int kThreads = kThreadsOfAddRows;
  __shared__ unsigned equal[kThreads / kWarp];  // bit l of w: row first + 32 w + l has the key
  const int64_t row = blockIdx.x, key = keys[row];
  const int thread = static_cast<int>(threadIdx.x);
  if (key == keys.none) return;
  bool earlier = false;
  for (int64_t i = thread; i < row; i += kThreads) earlier = earlier || keys[i] == key;
  if (__syncthreads_or(earlier)) return;

  const int64_t column = (int64_t{blockIdx.y} * kThreads + thread) * N;
  const bool mine = column < cols;
  const float factor = minus == nullptr ? 1.0f : static_cast<float>(-*minus);
  float sum[N] = {};
  if (mine) load_floats(table + key * cols + column, sum);
  for (int64_t first = row; first < rows; first += kThreads) {
    const int64_t i = first + thread;
    const unsigned in_warp = __ballot_sync(kWholeWarp, i < rows && keys[i] == key);
    if (thread % kWarp == 0) equal[thread / kWarp] = in_warp;
    __syncthreads();
    for (int w = 0; w < kThreads / kWarp; ++w) {
      for (unsigned left = equal[w]; left != 0 && mine; left &= left - 1) {
        const int64_t match = first + w * kWarp + __ffs(static_cast<int>(left)) - 1;
        const Values<T, N> d = load<N>(x + match * cols + column);
#pragma unroll
        for (int n = 0; n < N; ++n) sum[n] += factor * d.v[n];
      }
    }
    __syncthreads();  // before the next rows' bits
  }
  if (mine) store_floats(table + key * cols + column, sum);
}

template <class T>
void add_rows(Keys keys, int64_t rows, int64_t cols, const T* x, const double* minus, float* table,
              Stream& stream) {
  if (table == nullptr || cols == 0) return;
  constexpr int kN = kLanes<T>, kThreads = kThreadsOfAddRows;
  const auto blocks = static_cast<unsigned>(rows);
  if (fit_lanes(cols, x) && fit_lanes(cols, table)) {
    launch(add_rows_kernel<T, kN>, dim3(blocks, blocks_for(cols, kThreads * kN)), kThreads, 0, stream, keys,
           rows, cols, x, minus, table);
  } else {
    launch(add_rows_kernel<T, 1>, dim3(blocks, blocks_for(cols, kThreads)), kThreads, 0, stream, keys, rows,
           cols, x, minus, table);
  }
}

}  // namespace ziggurat::kernels
