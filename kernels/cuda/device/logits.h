// A row of a tile of logits, as softmaxes over the vocabulary read it.
#pragma once

#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

namespace ziggurat::kernels {

// N logits from column j on; -infinity beyond the tile, whose exponential is 0.
template <int N>
__device__ __forceinline__ void load_logits(const float* row, int64_t j, int64_t cols, float (&to)[N]) {
  if (j + N <= cols) {
    load_floats(row + j, to);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = j + i < cols ? row[j + i] : Maximum::kNeutral<float>;
  }
}

}  // namespace ziggurat::kernels
