// Root-mean-square normalisation over the last dim (Zhang and Sennrich 2019, eq. 4) and its backward.
// Floor: memory; forward 1 read and 1 write of [rows, cols], backward 2 reads and 1 write.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct RmsNormKernels : OnCpu {
  static constexpr const char* kName = "rms_norm";
  using Cuda = Dtypes<float, bf16>;
};

template <class T>
struct RmsNormArgs {
  int64_t rows = 0, cols = 0;
  Accum<T> eps = 0;
  const T* x = nullptr;              // [rows, cols]
  const Accum<T>* weight = nullptr;  // [cols]
  T* y = nullptr;                    // [rows, cols]
  Accum<T>* rstd = nullptr;          // [rows], out: 1 / sqrt(mean(x^2) + eps)
};

template <Device D, class T>
void rms_norm_forward(const RmsNormArgs<T>& args, Stream& stream);

template <class T>
struct RmsNormGradArgs {
  int64_t rows = 0, cols = 0;
  const T* x = nullptr;              // [rows, cols]
  const Accum<T>* weight = nullptr;  // [cols]
  const Accum<T>* rstd = nullptr;    // [rows] as forward left it
  const T* dy = nullptr;             // [rows, cols]
  T* dx = nullptr;                   // [rows, cols], or null
  bool accumulate_dx = false;
  Accum<T>* dweight = nullptr;  // [cols], +=; or null
};

// The weight's gradient is summed over fixed blocks of rows, combined in order: the same bits on any number
// of threads.
template <Device D, class T>
void rms_norm_backward(const RmsNormGradArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
