// The Lion update (Chen et al. 2023, arXiv 2302.06675, algorithm 2) on flat ranges.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct LionKernels : OnCpu {
  static constexpr const char* kName = "lion";
  using Cpu = Dtypes<float, double>;
  using Cuda = Dtypes<float>;
};

//   g = grad_scale grad     u = sign(beta1 m + (1 - beta1) g)     p = p - lr (u + weight_decay p)
//   m = beta2 m + (1 - beta2) g
// No two arrays may overlap.
template <class T>
struct LionArgs {
  int64_t n = 0;
  const T* gradient = nullptr;  // [n]
  T* master = nullptr;          // [n] p
  T* moment = nullptr;          // [n] m
  bf16* compute = nullptr;      // [n] = round(p), or null when the model computes on the masters
  double lr = 0, beta1 = 0.9, beta2 = 0.99, weight_decay = 0;
  const double* grad_scale = nullptr;  // [1] clip factor, in the device's memory
};

// Element by element. Where the clip factor is not finite nothing is updated. Floor: memory, all arrays but
// the gradient moved twice.
template <Device D, class T>
void lion_update(const LionArgs<T>& args, Stream& stream);

}  // namespace ziggurat::kernels
