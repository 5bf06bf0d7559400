// Matrix products, row-major: C [m,n] = op(A) [m,k] op(B) [k,n] + (accumulate ? C : 0).
// bf16 operands are multiplied exactly and summed in f32. Floor: 2 m n k flop.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct GemmKernels : OnCpu {
  static constexpr const char* kName = "gemm";
  using Cuda = Dtypes<float, bf16>;
};

template <class T, class TC>
struct GemmArgs {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  const T* a = nullptr;  // [m,k], or [k,m] if transpose_a
  int64_t lda = 0;       // elements between rows as stored
  const T* b = nullptr;  // [k,n], or [n,k] if transpose_b
  int64_t ldb = 0;
  TC* c = nullptr;  // [m,n]
  int64_t ldc = 0;
  bool accumulate = false;
};

// Instantiated for (T, TC) = (float, float), (bf16, bf16), (bf16, float); on the CPU (double, double) too.
//
// Determinism: on a strict stream the product is cut into fixed tiles, each computed by one thread, so the
// bits do not depend on the number of threads; on Device::cuda into tiles of rows, so that a row's bits do
// not depend on how many others there are. Takes scratch: not for several threads at once.
template <Device D, class T, class TC>
void gemm(const GemmArgs<T, TC>& args, Arena& workspace, Stream& stream);

// One product in one library call on the calling thread alone, for callers that spread products over threads
// themselves. Instantiated for (float, float), (double, double) and, for CPUs with Bf16Gemm::native, (bf16,
// float).
template <Device D, class T, class TC>
void gemm_on_this_thread(const GemmArgs<T, TC>& args);

// How bf16 products are computed on this CPU: by its bf16 dot products, or on operands widened to f32 where
// it has none (oneDNN's own emulation is four times slower than its f32 product).
enum class Bf16Gemm { native, widened };
Bf16Gemm bf16_gemm();

}  // namespace ziggurat::kernels
