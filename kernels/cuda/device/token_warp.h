// Of the router's kernels, in which a warp takes a token.
#pragma once

#include <kernels/cuda/device/reduce.h>

namespace ziggurat::kernels {

constexpr int kTokenThreads = 256;
constexpr int kTokenWarps = kTokenThreads / kWarp;

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / kWarp; }
// The token of a warp; all its lanes come to the same places.
__device__ __forceinline__ int64_t token_of_warp() { return int64_t{blockIdx.x} * kTokenWarps + warp(); }

}  // namespace ziggurat::kernels
