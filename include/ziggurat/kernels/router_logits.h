// The input of a router: x widened to the accumulation dtype, times noise from U(1 - eps, 1 + eps) where eps
// > 0 (Fedus et al. 2021, input jitter); and the way back. Noise is a function of the stream and the element.
// Floor: memory, 1 read and 1 write of n elements.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct RouterLogitsKernels : OnCpu {
  static constexpr const char* kName = "router_logits";
  using Cuda = Dtypes<float, bf16>;
};

template <class T>
struct RouterInputArgs {
  int64_t n = 0;
  double jitter_eps = 0;  // 0: no noise
  LatePhilox rng;
  const T* x = nullptr;   // [n]
  Accum<T>* y = nullptr;  // [n] x (1 + eps (2 uniform(first + i) - 1))
  int64_t first = 0;      // a multiple of 4
};

template <Device D, class T>
void router_input_forward(const RouterInputArgs<T>& args, Stream& stream);

template <class T>
struct RouterInputGradArgs {
  int64_t n = 0;
  double jitter_eps = 0;
  LatePhilox rng;
  const Accum<T>* dy = nullptr;  // [n]
  T* dx = nullptr;               // [n] dy (1 + eps (2 uniform(first + i) - 1))
  bool accumulate_dx = false;
  int64_t first = 0;
};

template <Device D, class T>
void router_input_backward(const RouterInputGradArgs<T>& args, Stream& stream);

}  // namespace ziggurat::kernels
