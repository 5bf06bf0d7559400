// Products of one warp on tiles (device/tile.h), the same for both types: bf16 on tensor cores, f32 by FMAs.
// A matrix of 16 rows and 8 N columns lies in registers as device/mma.h says, [N][4] in each lane.
#pragma once

#include <kernels/cuda/device/mma.h>
#include <kernels/cuda/device/tile.h>

namespace ziggurat::kernels {

// c [16, 8 N] += a [16, kCols] b [8 N, kCols]^T; a and b begin in tiles of kCols columns.
template <int kCols, int N>
__device__ __forceinline__ void add_product_of_rows(float (&c)[N][4], const bf16* a, const bf16* b) {
  constexpr int kLd = kTileStride<bf16, kCols>;
#pragma unroll
  for (int k = 0; k < kCols; k += 16) {
    const MmaA left = load_a(a + k, kLd);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      const MmaB2 right = load_b_transposed(b + 8 * n * kLd + k, kLd);
      mma(c[n], left, right.left);
      mma(c[n + 1], left, right.right);
    }
  }
}
template <int kCols, int N>
__device__ __forceinline__ void add_product_of_rows(float (&c)[N][4], const float* a, const float* b) {
  constexpr int kLd = kTileStride<float, kCols>;
  const int lane = lane_of_warp();
  a += lane / 4 * kLd;
  b += lane % 4 * 2 * kLd;
#pragma unroll 1
  for (int k = 0; k < kCols; k += 4) {
    const Values<float, 4> low = load<4>(a + k), high = load<4>(a + 8 * kLd + k);
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const Values<float, 4> right = load<4>(b + (8 * n + i) * kLd + k);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          c[n][i] += low.v[e] * right.v[e];
          c[n][2 + i] += high.v[e] * right.v[e];
        }
      }
    }
  }
}

// c [16, kCols] += a [16, 8 N] b [8 N, kCols]; a is rounded to b's type, b begins in a tile of kCols columns.
template <int kCols, int N>
__device__ __forceinline__ void add_product(float (&c)[kCols / 8][4], const float (&a)[N][4], const bf16* b) {
  constexpr int kLd = kTileStride<bf16, kCols>;
#pragma unroll
  for (int k = 0; k < N; k += 2) {
    const MmaA left = as_a(a[k], a[k + 1]);
#pragma unroll
    for (int n = 0; n < kCols / 8; n += 2) {
      const MmaB2 right = load_b(b + 8 * k * kLd + 8 * n, kLd);
      mma(c[n], left, right.left);
      mma(c[n + 1], left, right.right);
    }
  }
}
template <int kCols, int N>
__device__ __forceinline__ void add_product(float (&c)[kCols / 8][4], const float (&a)[N][4],
                                            const float* b) {
  constexpr int kLd = kTileStride<float, kCols>, kQuad = 4;  // lanes that hold a row together
  b += lane_of_warp() % kQuad * 2;
#pragma unroll
  for (int k = 0; k < N; ++k) {
#pragma unroll 1  // unrolled, ptxas loads so far ahead that it spills registers
    for (int i = 0; i < 8; ++i) {
      const float low = __shfl_sync(kWholeWarp, i % 2 == 0 ? a[k][0] : a[k][1], i / 2, kQuad);
      const float high = __shfl_sync(kWholeWarp, i % 2 == 0 ? a[k][2] : a[k][3], i / 2, kQuad);
      const float* const row = b + (8 * k + i) * kLd;
#pragma unroll
      for (int n = 0; n < kCols / 8; ++n) {
        const float2 right = *reinterpret_cast<const float2*>(row + 8 * n);
        c[n][0] += low * right.x;
        c[n][1] += low * right.y;
        c[n][2] += high * right.x;
        c[n][3] += high * right.y;
      }
    }
  }
}

}  // namespace ziggurat::kernels
