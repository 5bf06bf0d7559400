// Gradients of parameters that all rows share: each block of rows leaves its sums, which are added up in
// order, so that the bits depend on nothing but the shape.
#pragma once

#include <kernels/cuda/device/launch.h>

namespace ziggurat::kernels {

constexpr int64_t kRowsOfPartialSum = 32;

// gradient [cols] += sum of partial [blocks, cols] over the blocks
static __global__ void add_partial_sums_kernel(const float* partial, int64_t blocks, int64_t cols,
                                               float* gradient) {
  const int64_t j = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (j >= cols) return;
  float sum = 0;
  for (int64_t b = 0; b < blocks; ++b) sum += partial[b * cols + j];
  gradient[j] += sum;
}

inline void add_partial_sums(const float* partial, int64_t blocks, int64_t cols, float* gradient,
                             Stream& stream) {
  constexpr int kThreads = 64;  // few columns are spread over many processors
  if (gradient == nullptr) return;
  launch(add_partial_sums_kernel, blocks_for(cols, kThreads), kThreads, 0, stream, partial, blocks, cols,
         gradient);
}

}  // namespace ziggurat::kernels
