// What label smoothing adds to the cross-entropy of logits z = x W^T: of every counted row
//   epsilon (z_t - mean over the vocabulary of z),
// so that both together are the cross-entropy with targets that hold 1 - epsilon + epsilon / V at t and
// epsilon / V elsewhere (Szegedy et al. 2016, section 7; torch's label_smoothing). It is linear in x and in
// W, so no logits are needed: with s the sum of the rows of W and u that of the counted rows of x,
//   value  epsilon x_i . (W_t - s / V),  dx_i = epsilon (W_t - s / V),  dW_t += epsilon x_i,  dW_j -= epsilon
//   u / V.
// Of a vocabulary that lies on several ranks, each computes what its rows make of all this: value and dx are
// to be summed over them.
// Floor: memory, one read of W and one read and write of its gradient. Sums in double, in an order that no
// number of threads changes.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct LabelSmoothingKernels : OnCpu {
  static constexpr const char* kName = "label_smoothing";
  using Cuda = Dtypes<float, bf16>;
};

template <class T>
struct LabelSmoothingArgs {
  int64_t rows = 0, cols = 0, vocabulary = 0;
  int64_t words = 0;  // V, of all ranks
  double epsilon = 0;
  const T* x = nullptr;              // [rows, cols]
  const T* weight = nullptr;         // [vocabulary, cols]
  const int32_t* targets = nullptr;  // [rows], in [0, words) or ignore_index
  int32_t ignore_index = -1;
  const int32_t* own_targets = nullptr;  // [rows], in [0, vocabulary) or elsewhere
  int32_t elsewhere = -1;                // also of ignored ones
  double* sum = nullptr;                 // [1] of the values
  const double* grad_scale = nullptr;    // [1] of both gradients
  T* dx = nullptr;                       // [rows, cols], or null
  bool accumulate_dx = false;
  Accum<T>* dweight = nullptr;  // [vocabulary, cols], added to; or null
};

template <Device D, class T>
void label_smoothing(const LabelSmoothingArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
