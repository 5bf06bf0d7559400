// y_i = a_i + s_i b_i with s_i = sigmoid(logit_i), row by row; and its backward; da is dy.
// Floor: memory; forward 2 reads and 1 write of [rows, cols], backward 2 reads and 1 write.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/runtime/device.h>

namespace ziggurat::kernels {

template <class T>
struct GatedAddArgs {
  int64_t rows = 0, cols = 0;
  const T* a = nullptr;              // [rows, cols]
  const T* b = nullptr;              // [rows, cols]
  const Accum<T>* logits = nullptr;  // [rows]
  T* y = nullptr;                    // [rows, cols]
};

template <Device D, class T>
void gated_add_forward(const GatedAddArgs<T>& args, Stream& stream);

template <class T>
struct GatedAddGradArgs {
  int64_t rows = 0, cols = 0;
  const T* b = nullptr;              // [rows, cols]; read for dlogits only
  const Accum<T>* logits = nullptr;  // [rows]
  const T* dy = nullptr;             // [rows, cols]
  T* db = nullptr;                   // [rows, cols], or null
  bool accumulate_db = false;
  Accum<T>* dlogits = nullptr;  // [rows], or null
  bool accumulate_dlogits = false;
};

template <Device D, class T>
void gated_add_backward(const GatedAddGradArgs<T>& args, Stream& stream);

}  // namespace ziggurat::kernels
