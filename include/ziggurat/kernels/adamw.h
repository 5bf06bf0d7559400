// The AdamW update and the sum of squares for the clip norm (kernels/clip.h), on flat ranges.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/core/philox.h>
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
// T is the type of gradients and of all that is computed, P of masters and M of moments: all float or all
// double; or T float, and P or M or both bf16, to which results are rounded stochastically. No two arrays may
// overlap.
template <class T, class P = T, class M = T>
struct AdamWArgs {
  int64_t n = 0;
  const T* gradient = nullptr;  // [n]
  P* master = nullptr;          // [n] p
  M* moment1 = nullptr;         // [n] m
  M* moment2 = nullptr;         // [n] v
  bf16* compute = nullptr;      // [n] = round(p), or null when the model computes on the masters
  double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  const double* grad_scale = nullptr;  // [1] clip factor, in the device's memory
  int64_t step = 1;                    // t: updates of this parameter, this one included; >= 1
  // What bf16 are rounded with: element i draws the words of block (first + i) / 2, two each
  // (kernels/stochastic_rounding.h).
  Philox random{0, Purpose::state_rounding};
  uint64_t first = 0;
};

// Element by element: how a slab is cut into ranges changes no bit. Where the clip factor is not finite
// nothing is updated. Floor: memory, all arrays but the gradient moved twice.
template <Device D, class T, class P, class M>
void adamw_update(const AdamWArgs<T, P, M>& args, Stream& stream);

struct SumOfSquaresKernels : OnCpu {
  static constexpr const char* kName = "sum_of_squares";
  using Cpu = Dtypes<float, double>;
  using Cuda = Dtypes<float>;
};

// *sum, in the device's memory, = the sum of x_i^2 over [n], in double. A function of the values and n only,
// whatever the number of threads.
template <Device D, class T>
void sum_of_squares(const T* x, int64_t n, double* sum, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
