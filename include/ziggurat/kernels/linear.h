// A linear layer of many rows: y = activation(x weight^T + bias), and its backward.
// Floor: 2 rows in out flop forward, twice as many backward. Bias and activation are a pass over [rows, out]
// on the CPU; on Device::cuda they are part of the product where the library has it so.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct LinearKernels : OnCpu {
  static constexpr const char* kName = "linear";
  using Cuda = Dtypes<float, bf16>;
};

template <class T>
struct LinearArgs {
  int64_t rows = 0, in = 0, out = 0;
  const T* x = nullptr;            // [rows, in]
  const T* weight = nullptr;       // [out, in]
  uint64_t version = 0;            // of the weight (kernels/weight_copies.h)
  const Accum<T>* bias = nullptr;  // [out], or null
  Activation activation = Activation::none;
  T* z = nullptr;  // [rows, out] x weight^T + bias
  T* y = nullptr;  // [rows, out] activation(z); unused for Activation::none
};

// The activation is of z as rounded to T, or, in one product with it, of the sum before that rounding.
template <Device D, class T>
void linear_forward(const LinearArgs<T>& args, Arena& workspace, Stream& stream);

template <class T>
struct LinearGradArgs {
  LinearArgs<T> forward;  // y is not read; z only where there is an activation
  const T* dy = nullptr;  // [rows, out]
  T* dx = nullptr;        // [rows, in] = (or +=) dz weight; or null
  bool accumulate_dx = false;
  Accum<T>* dweight = nullptr;  // [out, in] = (or +=) dz^T x; or null
  bool accumulate_dweight = false;
  Accum<T>* dbias = nullptr;  // [out] += column sums of dz; or null
};

template <Device D, class T>
void linear_backward(const LinearGradArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
