// Linear layers of several experts, each over its own groups of rows.
// Groups are cut into units of fixed size, counted from each group's own start, and computed one per thread
// (on the CPU) or block: bits never depend on the number of threads, nor a group's bits on its neighbours.
// Sums of one gradient run over its groups in order. Floor: 2 R in out flop, and one read of every expert's
// weight that has rows.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/kernels/row_groups.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct GroupedLinearKernels : OnCpu {
  static constexpr const char* kName = "grouped_linear";
  using Cuda = Dtypes<float, bf16>;
};

template <class T>
struct GroupedLinearArgs {
  RowGroups groups;
  int64_t rows = 0, in = 0, out = 0;  // rows: R, no fewer than the groups have
  const T* x = nullptr;               // [R,in]
  const T* weight = nullptr;          // [experts,out,in]
  uint64_t version = 0;               // of the weight (kernels/weight_copies.h)
  const Accum<T>* bias = nullptr;     // [experts,out] or null
  Activation activation = Activation::none;
  T* z = nullptr;  // [R,out] x weight^T + bias
  T* y = nullptr;  // [R,out] activation(z); unused for Activation::none
};
template <Device D, class T>
void grouped_linear_forward(const GroupedLinearArgs<T>& args, Arena& workspace, Stream& stream);

template <class T>
struct GroupedLinearGradArgs {
  GroupedLinearArgs<T> forward;  // y is not read; z only where there is an activation
  const T* dy = nullptr;         // [R,out]
  T* dx = nullptr;               // [R,in] = (or +=) dz weight; or null
  bool accumulate_dx = false;
  // Gradients are added to. Source s adds at an offset of s * their stride in elements; stride 0: all sources
  // share one gradient.
  Accum<T>* dweight = nullptr;  // [experts,out,in] += dz^T x; or null
  int64_t dweight_stride = 0;
  Accum<T>* dbias = nullptr;  // [experts,out] += column sums of dz; or null
  int64_t dbias_stride = 0;
  bool overwrite_dweight = false;  // = instead of +=, zeros for experts without rows; with stride 0 only
};
template <Device D, class T>
void grouped_linear_backward(const GroupedLinearGradArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
