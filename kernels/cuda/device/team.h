// Threads that work on one row: they take its columns in turns and add up what they found. A block may hold
// several teams, which need not come to the same places.
#pragma once

#include <kernels/cuda/device/reduce.h>

namespace ziggurat::kernels {

// A whole block, one row of kThreads.
template <int kThreads>
struct BlockTeam {
  static constexpr int kSize = kThreads, kOfBlock = 1;
  __device__ int rank() const { return static_cast<int>(threadIdx.x); }
  __device__ int number() const { return 0; }  // in its block
  __device__ float sum(float value) const { return block_sum<kThreads>(value); }
};

// kLanes_ neighbouring lanes of a warp, of a block of kThreads.
template <int kThreads, int kLanes_>
struct LaneTeam {
  static constexpr int kSize = kLanes_, kOfBlock = kThreads / kSize;
  static_assert(kWarp % kSize == 0);
  __device__ int rank() const { return static_cast<int>(threadIdx.x) % kSize; }
  __device__ int number() const { return static_cast<int>(threadIdx.x) / kSize; }
  __device__ float sum(float value) const {
    const int first_lane = static_cast<int>(threadIdx.x) % kWarp / kSize * kSize;
    const unsigned mask = (kWholeWarp >> (kWarp - kSize)) << first_lane;
#pragma unroll
    for (int bits = kSize / 2; bits > 0; bits /= 2) value += __shfl_xor_sync(mask, value, bits);
    return value;
  }
};

}  // namespace ziggurat::kernels
