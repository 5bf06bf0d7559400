// The Adafactor update (Shazeer and Stern 2018, arXiv 1804.04235, algorithms 4 and 5) of one matrix or
// vector, without momentum, as T5 and OpenMoE train with it.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct AdafactorKernels : OnCpu {
  static constexpr const char* kName = "adafactor";
  using Cpu = Dtypes<float, double>;
  using Cuda = Dtypes<float>;
};

//   g = grad_scale grad     s = g^2 + 1e-30     beta = 1 - t^-decay_exponent
//   factored:  r_i = beta r_i + (1 - beta) mean_j s_ij     c_j = beta c_j + (1 - beta) mean_i s_ij
//              v_ij = r_i c_j / mean(r)
//   else:      v = beta v + (1 - beta) s
//   u = g / sqrt(v)     u = u / max(1, rms(u) / clip)
//   p = p - lr max(least_scale, rms(p)) u - lr weight_decay p
// rms: the root of the mean of squares over the matrix, of p before the update.
template <class T>
struct AdafactorArgs {
  int64_t rows = 0, cols = 0;
  const T* gradient = nullptr;                       // [rows, cols]
  T* master = nullptr;                               // [rows, cols] p
  T *row_squares = nullptr, *col_squares = nullptr;  // [rows] r, [cols] c; null: not factored
  T* squares = nullptr;                              // [rows, cols] v; null: factored
  bf16* compute = nullptr;                           // [rows, cols] = round(p), or null
  double lr = 0, decay_exponent = 0.8, clip = 1, least_scale = 1e-3, weight_decay = 0;
  const double* grad_scale = nullptr;  // [1] clip factor, in the device's memory
  int64_t step = 1;                    // t: updates of this parameter, this one included; >= 1
};

// Where the clip factor is not finite nothing is updated. Sums are in double, in an order that does not
// depend on the number of threads. Floor: memory, the gradient read three times.
template <Device D, class T>
void adafactor_update(const AdafactorArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
