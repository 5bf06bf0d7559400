// The AdamW update and the sum of squares for the clip norm, on flat ranges.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct AdamWKernels : OnCpu {
  static constexpr const char* kName = "adamw";
  using Cpu = Dtypes<float, double>;
  using Cuda = Dtypes<float>;
};

// Decoupled weight decay (Loshchilov and Hutter 2019, Algorithm 2, with decay scaled by lr as PyTorch does):
//   g = grad_scale grad     m = beta1 m + (1 - beta1) g     v = beta2 v + (1 - beta2) g^2
//   p = p - lr weight_decay p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
// T is the type of masters, moments and gradients: float or double. No two arrays may overlap.
template <class T>
struct AdamWArgs {
  int64_t n = 0;
  const T* gradient = nullptr;  // [n]
  T* master = nullptr;          // [n] p
  T* moment1 = nullptr;         // [n] m
  T* moment2 = nullptr;         // [n] v
  bf16* compute = nullptr;      // [n] = round(p), or null when the model computes on the masters
  double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  double grad_scale = 1;  // clip factor
  int64_t step = 1;       // t: updates of this parameter, this one included; >= 1
};

// Element by element: how a slab is cut into ranges changes no bit. Floor: memory, 7 arrays of T moved once.
template <Device D, class T>
void adamw_update(const AdamWArgs<T>& args, Stream& stream);

struct SumOfSquaresKernels : OnCpu {
  static constexpr const char* kName = "sum_of_squares";
  using Cpu = Dtypes<float, double>;
  using Cuda = Dtypes<float>;
};

// Sum of x_i^2 over [n], in double. A function of the values and n only, whatever the number of threads.
template <Device D, class T>
double sum_of_squares(const T* x, int64_t n, Stream& stream);

// The same into *sum, in memory of the device: nobody waits. The form that exists on every device.
template <Device D, class T>
void sum_of_squares(const T* x, int64_t n, double* sum, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
