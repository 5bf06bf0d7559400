// Layer normalisation over the last dim (Ba, Kiros and Hinton 2016, eq. 4) and its backward.
// Floor: memory; forward 1 read and 1 write of [rows, cols], backward 2 reads and 1 write.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct LayerNormKernels : OnCpu {
  static constexpr const char* kName = "layer_norm";
  using Cuda = Dtypes<float, bf16>;
};

template <class T>
struct LayerNormArgs {
  int64_t rows = 0, cols = 0;
  Accum<T> eps = 0;
  const T* x = nullptr;              // [rows, cols]
  const Accum<T>* weight = nullptr;  // [cols]
  const Accum<T>* bias = nullptr;    // [cols]
  T* y = nullptr;                    // [rows, cols]
  Accum<T>* mean = nullptr;          // [rows], out
  Accum<T>* rstd = nullptr;          // [rows], out: 1 / sqrt(variance + eps)
};

template <Device D, class T>
void layer_norm_forward(const LayerNormArgs<T>& args, Stream& stream);

template <class T>
struct LayerNormGradArgs {
  int64_t rows = 0, cols = 0;
  const T* x = nullptr;              // [rows, cols]
  const Accum<T>* weight = nullptr;  // [cols]
  const Accum<T>* mean = nullptr;    // [rows] as forward left it
  const Accum<T>* rstd = nullptr;    // [rows]
  const T* dy = nullptr;             // [rows, cols]
  T* dx = nullptr;                   // [rows, cols], or null
  bool accumulate_dx = false;
  Accum<T>* dweight = nullptr;  // [cols], +=; or null
  Accum<T>* dbias = nullptr;    // [cols], +=; or null
};

// Parameter gradients are summed over fixed blocks of rows, combined in order: the same bits on any number of
// threads.
template <Device D, class T>
void layer_norm_backward(const LayerNormGradArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
