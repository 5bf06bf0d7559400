// y_i = c_i0 a_i + c_i1 b_i with c_i = softmax(logits_i), row by row; and its backward.
// Floor: memory; forward 2 reads and 1 write of [rows, cols], backward 3 reads and 2 writes.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct MixKernels : OnCpu {
  static constexpr const char* kName = "mix";
  using Cuda = Dtypes<float, bf16>;
};

template <class T>
struct MixArgs {
  int64_t rows = 0, cols = 0;
  const T* a = nullptr;              // [rows, cols]
  const T* b = nullptr;              // [rows, cols]
  const Accum<T>* logits = nullptr;  // [rows, 2]
  T* y = nullptr;                    // [rows, cols]
};

template <Device D, class T>
void mix_forward(const MixArgs<T>& args, Stream& stream);

template <class T>
struct MixGradArgs {
  int64_t rows = 0, cols = 0;
  const T* a = nullptr;              // [rows, cols]
  const T* b = nullptr;              // [rows, cols]
  const Accum<T>* logits = nullptr;  // [rows, 2]
  const T* dy = nullptr;             // [rows, cols]
  T* da = nullptr;                   // [rows, cols], or null
  bool accumulate_da = false;
  T* db = nullptr;  // [rows, cols], or null; may be da if accumulate_db
  bool accumulate_db = false;
  Accum<T>* dlogits = nullptr;  // [rows, 2], or null
  bool accumulate_dlogits = false;
};

template <Device D, class T>
void mix_backward(const MixGradArgs<T>& args, Stream& stream);

}  // namespace ziggurat::kernels
