// Sums over the threads of a warp or block, in an order that depends on nothing but their number.
#pragma once

#include <cuda_runtime.h>

namespace ziggurat::kernels {

constexpr int kWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

// Every lane gets the sum.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int bits = kWarp / 2; bits > 0; bits /= 2) value += __shfl_xor_sync(kWholeWarp, value, bits);
  return value;
}

// Every thread of a block of kThreads, one row of whole warps, gets the sum. All must come; a block may call
// it again.
template <int kThreads>
__device__ __forceinline__ float block_sum(float value) {
  constexpr int kWarps = kThreads / kWarp;
  static_assert(kThreads % kWarp == 0 && kWarps <= kWarp);
  __shared__ float sums[kWarps];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  value = warp_sum(value);
  if (lane == 0) sums[warp] = value;
  __syncthreads();
  value = warp_sum(lane < kWarps ? sums[lane] : 0.0f);
  __syncthreads();  // before the next call writes
  return value;
}

}  // namespace ziggurat::kernels
