// Divergence of a student's next-token distribution from a teacher's, and its gradient, over a vocabulary
// that comes in tiles of columns. With the student's logits z, the teacher's t and a temperature T:
//   p = softmax(t / T), q = softmax(z / T)                      (Hinton et al. 2015, arXiv 1503.02531)
//   divergence = sum_j p_j (log p_j - log q_j)                  forward KL, nats
//   loss = cross_entropy + z_loss lse(z)^2 + weight T^2 divergence   (DeepSpeed-MoE, equation 1; T^2: its
//   code) dz_j = g (1 + 2 z_loss lse(z)) softmax(z)_j + g weight T (q_j - p_j)  - g [j = target]
// The last term is left to subtract_targets (kernels/cross_entropy.h), as in the cross-entropy alone.
// Two passes: sums of exponentials tile by tile, then, when those of the whole vocabulary are known, this.
// Floor: each reads both logits once from memory; the second writes as many gradients, with two exponentials
// each, or three at a temperature.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/cross_entropy.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct DistillationKernels : OnCpu {
  static constexpr const char* kName = "distillation";
  using Cuda = Dtypes<float, bf16>;
};

// Of a row: the largest of scale * logits so far, and the sum of e^(scale * logit - maximum).
template <class A>
struct ExponentialSums {
  A* maximum = nullptr;   // [rows]
  double* sum = nullptr;  // [rows]
};

template <class A>
struct AddExponentialsArgs {
  int64_t rows = 0, cols = 0, stride = 0;  // columns of the vocabulary in the tile, and elements between rows
  const A* logits = nullptr;
  double scale = 1;   // 1 / T
  bool first = true;  // tile: sums begin
  ExponentialSums<A> sums;
};
// Instantiated for float and double, as all below. A row belongs to one thread.
template <Device D, class A>
void add_exponentials(const AddExponentialsArgs<A>& args, Stream& stream);

// Of parts of a vocabulary, from each one's sums to those of all. A part without words has the sum 0.
template <class A>
struct JoinExponentialsArgs {
  int64_t rows = 0, parts = 0;
  ExponentialSums<A> of_parts;  // [parts, rows]
  ExponentialSums<A> sums;      // [rows]
};
template <Device D, class A>
void join_exponentials(const JoinExponentialsArgs<A>& args, Stream& stream);

template <class A, class G>
struct DistillationTileArgs {
  int64_t rows = 0, cols = 0, stride = 0, teacher_stride = 0;
  const A *student = nullptr, *teacher = nullptr;  // [rows, stride], [rows, teacher_stride] logits
  double scale = 1;                                // 1 / T
  const int32_t* targets = nullptr;                // [rows]; what has ignore_index for one gets nothing
  int32_t ignore_index = -1;
  const TokenLoss* losses = nullptr;  // [rows] cross-entropies
  const A* target_logit = nullptr;    // [rows]
  ExponentialSums<A> of_student;      // of scale * logits; null where scale is 1
  ExponentialSums<A> of_teacher;
  double z_loss = 0;
  const double* grad_scale = nullptr;  // [1] g
  const double* weight = nullptr;      // [1]
  bool first = true;                   // tile: divergences begin
  double* divergence = nullptr;        // [rows]
  G* gradient = nullptr;               // [rows, stride] dz, 0 beyond cols; may be student; or null
};
// Instantiated for (A, G) = (float, float), (float, bf16), (double, double).
template <Device D, class A, class G>
void distillation_tile(const DistillationTileArgs<A, G>& args, Stream& stream);

struct AddDivergencesArgs {
  int64_t rows = 0;
  const double* divergence = nullptr;  // [rows]
  const double* weight = nullptr;      // [1]
  double factor = 1;                   // T^2
  double* sum = nullptr;               // [1] += weight * factor * divergence
};
// In the order of the rows on the CPU, in a tree that depends on their number alone on CUDA.
template <Device D>
void add_divergences(const AddDivergencesArgs& args, Stream& stream);

}  // namespace ziggurat::kernels
