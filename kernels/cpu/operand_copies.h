// What the matrix library multiplies in place of matrices as they are stored.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

inline int64_t rows_per_block(int64_t cols) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(cols, 1));
}

// A f32 copy, with row stride ld_copy, of a matrix [rows, cols] with row stride ld.
template <class T>
const float* float_copy(const T* x, int64_t rows, int64_t cols, int64_t ld, int64_t ld_copy,
                        Arena& workspace) {
  auto* copy = workspace.take_on_device<float>(rows * ld_copy);
  parallel_for_blocks(rows, rows_per_block(cols), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < cols; ++j) copy[i * ld_copy + j] = x[i * ld + j];
    }
  });
  return copy;
}

// C [rows, cols] with row stride ldc = or += sum [rows, cols], rounded once.
inline void round_sum(const float* sum, int64_t rows, int64_t cols, bf16* c, int64_t ldc, bool accumulate) {
  parallel_for_blocks(rows, rows_per_block(cols), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      bf16* to = c + i * ldc;
      const float* from = sum + i * cols;
      if (accumulate) {
        for (int64_t j = 0; j < cols; ++j) to[j] = bf16(float(to[j]) + from[j]);
      } else {
        for (int64_t j = 0; j < cols; ++j) to[j] = bf16(from[j]);
      }
    }
  });
}

// The operands of products of T, for kernels that prepare them once for many products: on CPUs without bf16
// dot products they are widened to f32.
template <class T>
struct Same {
  using Operand = T;
  static const T* matrix(const T* x, int64_t, Arena&, Stream&) { return x; }
};
struct Widened {
  using Operand = float;
  static const float* matrix(const bf16* x, int64_t n, Arena& workspace, Stream& stream) {
    auto* wide = workspace.take_on_device<float>(n);
    convert<Device::cpu>(x, wide, n, stream);
    return wide;
  }
};

// Calls f with the operand policy of T on this CPU.
template <class T, class F>
void with_operands(const F& f) {
  if constexpr (std::is_same_v<T, bf16>) {
    if (bf16_gemm() == Bf16Gemm::widened) return f(Widened{});
  }
  f(Same<T>{});
}

}  // namespace ziggurat::kernels
