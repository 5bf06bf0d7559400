// Products of bf16 on tensor cores, summed in f32: a warp adds a [16, 16] b [16, 8] to c [16, 8]. Operands
// come from shared memory, where rows are `ld` elements apart; 16-byte rows of neighbouring lanes meet no
// bank twice where ld is an odd multiple of 8. Lane l holds of c, in this order, columns 2 (l % 4) and the
// next of row l / 4, and of row l / 4 + 8.
#pragma once

#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>
#include <ptx/tensor_core.h>

namespace ziggurat::kernels {

struct MmaA {
  uint32_t words[4];
};
struct MmaB {
  uint32_t words[2];
};

__device__ __forceinline__ void mma(float (&c)[4], const MmaA& a, const MmaB& b) {
  ptx::mma_m16n8k16(c, a.words, b.words);
}

__device__ __forceinline__ int lane_of_warp() { return static_cast<int>(threadIdx.x) % kWarp; }

// a = x [16, 16]
__device__ __forceinline__ MmaA load_a(const bf16* x, int ld) {
  const int lane = lane_of_warp();
  MmaA a;
  ptx::ldmatrix_x4(a.words, x + lane % 16 * ld + lane / 16 * 8);
  return a;
}
// a = x [16, 16]^T
__device__ __forceinline__ MmaA load_a_transposed(const bf16* x, int ld) {
  const int lane = lane_of_warp();
  MmaA a;
  ptx::ldmatrix_x4_transposed(a.words, x + (lane / 16 * 8 + lane % 8) * ld + lane / 8 % 2 * 8);
  return a;
}

// Two b, side by side.
struct MmaB2 {
  MmaB left, right;
};
// b = x [16, 16]
__device__ __forceinline__ MmaB2 load_b(const bf16* x, int ld) {
  const int lane = lane_of_warp();
  uint32_t words[4];
  ptx::ldmatrix_x4_transposed(words, x + lane % 16 * ld + lane / 16 * 8);
  return {{{words[0], words[1]}}, {{words[2], words[3]}}};
}
// b = x [16, 16]^T
__device__ __forceinline__ MmaB2 load_b_transposed(const bf16* x, int ld) {
  const int lane = lane_of_warp();
  uint32_t words[4];
  ptx::ldmatrix_x4(words, x + (lane / 16 * 8 + lane % 8) * ld + lane / 8 % 2 * 8);
  return {{{words[0], words[1]}}, {{words[2], words[3]}}};
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  return static_cast<uint32_t>(rounded<bf16>(low).bits) | static_cast<uint32_t>(rounded<bf16>(high).bits)
                                                              << 16;
}
// a = two c side by side, rounded: a result goes into the next product without leaving its registers.
__device__ __forceinline__ MmaA as_a(const float (&left)[4], const float (&right)[4]) {
  return {{pack_bf16(left[0], left[1]), pack_bf16(left[2], left[3]), pack_bf16(right[0], right[1]),
           pack_bf16(right[2], right[3])}};
}

}  // namespace ziggurat::kernels
