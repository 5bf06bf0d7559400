// The epilogue of a linear layer: z += bias, y = activation(z); and its backward.
// Floor: memory; forward 1 read and 2 writes of [rows, cols], backward 2 reads and 1 write.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct BiasActivationKernels : OnCpu {
  static constexpr const char* kName = "bias_activation";
  using Cuda = Dtypes<float, bf16>;
};

enum class Activation { none, gelu_tanh, gelu_erf };

template <class T>
struct BiasActivationArgs {
  Activation activation = Activation::none;
  int64_t rows = 0, cols = 0;
  T* z = nullptr;                  // [rows, cols] in: x W^T; out: with the bias added
  const Accum<T>* bias = nullptr;  // [cols], or null
  T* y = nullptr;                  // [rows, cols]; unused for Activation::none
};

template <Device D, class T>
void bias_activation_forward(const BiasActivationArgs<T>& args, Stream& stream);

template <class T>
struct BiasActivationGradArgs {
  Activation activation = Activation::none;
  int64_t rows = 0, cols = 0;
  const T* z = nullptr;       // [rows, cols] as forward left it; unused for Activation::none
  const T* dy = nullptr;      // [rows, cols]
  T* dz = nullptr;            // [rows, cols] dy * activation'(z); for Activation::none may be null (dz = dy)
  Accum<T>* dbias = nullptr;  // [cols], += column sums of dz; or null
};

// Column sums run over fixed blocks of rows, combined in order: the same bits on any number of threads.
template <Device D, class T>
void bias_activation_backward(const BiasActivationGradArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
