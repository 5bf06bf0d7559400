// Sums and maxima over the threads of a warp or block, in an order that depends on nothing but their number.
#pragma once

#include <cuda_runtime.h>

namespace ziggurat::kernels {

constexpr int kWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

struct Sum {
  template <class V>
  static constexpr V kNeutral = 0;
  template <class V>
  __device__ V operator()(V a, V b) const {
    return a + b;
  }
};
// Passes over NaNs.
struct Maximum {
  template <class V>
  static constexpr V kNeutral = -__builtin_huge_valf();
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Every lane gets the result.
template <class F, class V>
__device__ __forceinline__ V warp_reduce(V value) {
#pragma unroll
  for (int bits = kWarp / 2; bits > 0; bits /= 2) {
    value = F()(value, __shfl_xor_sync(kWholeWarp, value, bits));
  }
  return value;
}
template <class V>
__device__ __forceinline__ V warp_sum(V value) {
  return warp_reduce<Sum>(value);
}

// Every thread of a block of kThreads, one row of whole warps, gets the result. All must come; a block may
// call it again.
template <class F, int kThreads, class V>
__device__ __forceinline__ V block_reduce(V value) {
  constexpr int kWarps = kThreads / kWarp;
  static_assert(kThreads % kWarp == 0 && kWarps <= kWarp);
  __shared__ V results[kWarps];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  value = warp_reduce<F>(value);
  if (lane == 0) results[warp] = value;
  __syncthreads();
  value = warp_reduce<F>(lane < kWarps ? results[lane] : F::template kNeutral<V>);
  __syncthreads();  // before the next call writes
  return value;
}
template <int kThreads, class V>
__device__ __forceinline__ V block_sum(V value) {
  return block_reduce<Sum, kThreads>(value);
}
template <int kThreads>
__device__ __forceinline__ float block_max(float value) {
  return block_reduce<Maximum, kThreads>(value);
}

}  // namespace ziggurat::kernels
