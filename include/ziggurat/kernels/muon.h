// The Muon update of one matrix (K. Jordan et al. 2024, kellerjordan.github.io/posts/muon).
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct MuonKernels : OnCpu {
  static constexpr const char* kName = "muon";
  using Cpu = Dtypes<float, double>;
  using Cuda = Dtypes<float>;
};

//   g = grad_scale grad     m = momentum m + g     u = nesterov ? g + momentum m : m
//   x = u / (|u| + 1e-7), then `iterations` times   x = a x + (b s + c s s) x   with s = x x^T
//   p = p - lr weight_decay p - length x
// with (a, b, c) = (3.4445, -4.7750, 2.0315) and |u| the root of the sum of squares; where there are more
// rows than columns, with s = x^T x on the other side, which comes to the same.
template <class T>
struct MuonArgs {
  int64_t rows = 0, cols = 0;
  const T* gradient = nullptr;  // [rows, cols]
  T* master = nullptr;          // [rows, cols] p
  T* moment = nullptr;          // [rows, cols] m
  bf16* compute = nullptr;      // [rows, cols] = round(p), or null
  double lr = 0, length = 0, momentum = 0.95, weight_decay = 0;
  bool nesterov = true;
  int64_t iterations = 5;
  const double* grad_scale = nullptr;  // [1] clip factor, in the device's memory
};

// Where the clip factor is not finite nothing is updated. The orthogonal matrix is computed in T. Takes
// scratch for two matrices [rows, cols] and two of the smaller side squared. Floor: with n the smaller and m
// the larger side, iterations (4 n^2 m + 2 n^3) flop.
template <Device D, class T>
void muon_update(const MuonArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
