// y = silu(gate) up, silu(z) = z / (1 + e^-z) (Shazeer 2020, eq. 6), and its backward.
// Floor: memory; forward 2 reads and 1 write of n elements, backward 3 reads and 2 writes.
#pragma once

#include <cstdint>

#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct SwigluKernels : OnCpu {
  static constexpr const char* kName = "swiglu";
  using Cuda = Dtypes<float, bf16>;
};

template <class T>
struct SwigluArgs {
  int64_t n = 0;
  const T* gate = nullptr;  // [n]
  const T* up = nullptr;    // [n]
  T* y = nullptr;           // [n]
};

template <Device D, class T>
void swiglu_forward(const SwigluArgs<T>& args, Stream& stream);

template <class T>
struct SwigluGradArgs {
  int64_t n = 0;
  const T* gate = nullptr;  // [n]
  const T* up = nullptr;    // [n]
  const T* dy = nullptr;    // [n]
  T* dgate = nullptr;       // [n], or null
  bool accumulate_dgate = false;
  T* dup = nullptr;  // [n], or null; may be dgate if accumulate_dup
  bool accumulate_dup = false;
};

template <Device D, class T>
void swiglu_backward(const SwigluGradArgs<T>& args, Stream& stream);

}  // namespace ziggurat::kernels
