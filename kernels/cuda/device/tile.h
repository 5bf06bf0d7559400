// Tiles of rows in shared memory, on which a warp's products work: kCols of T, and 16 bytes more to the next
// row, so that neighbouring rows do not begin in the same bank.
#pragma once

#include <cuda_pipeline.h>
#include <kernels/cuda/device/number.h>

namespace ziggurat::kernels {

template <class T, int kCols>
inline constexpr int kTileStride = kCols + kLanes<T>;  // elements

// Begins to copy `rows` rows of `cols` elements, `stride` apart, into a tile of kRows; zeros elsewhere. By
// all kThreads of a block, which then commit and wait (__pipeline_commit, __pipeline_wait_prior) and meet.
// `fits`: by 16 bytes.
template <int kThreads, int kRows, int kCols, class T>
__device__ __forceinline__ void copy_tile(const T* from, int64_t stride, int rows, int cols, bool fits,
                                          T* tile) {
  constexpr int kN = kLanes<T>, kPieces = kCols / kN;  // of a row
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPieces; i += kThreads) {
    const int row = i / kPieces, col = i % kPieces * kN;
    const T* const source = from + row * stride + col;
    T* const to = tile + row * kTileStride<T, kCols> + col;
    if (fits) {
      const bool inside = row < rows && col < cols;
      __pipeline_memcpy_async(to, inside ? source : from, 16, inside ? 0 : 16);
    } else {
      for (int n = 0; n < kN; ++n) to[n] = row < rows && col + n < cols ? source[n] : T{};
    }
  }
}

}  // namespace ziggurat::kernels
