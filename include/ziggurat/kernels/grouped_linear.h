// Linear layers of several experts, each over its own runs of rows (segments).
// Segments are cut into units of fixed size, computed one per thread with single-threaded products: bits
// never depend on the number of threads, nor a segment's bits on its neighbours. Sums of one gradient run
// over its segments in order. Floor: 2 R in out flop, and one read of every expert's weight that has rows.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/kernels/packed_weights.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct GroupedLinearKernels : OnCpu {
  static constexpr const char* kName = "grouped_linear";
};

// Rows [row_begin, row_begin + rows) belong to local expert `expert` and came from rank `source` of the
// expert-parallel group. Segments are disjoint.
struct Segment {
  int64_t row_begin = 0, rows = 0;
  int32_t expert = 0, source = 0;
};

template <class T>
struct GroupedLinearArgs {
  const Segment* segments = nullptr;
  int64_t segment_count = 0;
  int64_t rows = 0, in = 0, out = 0, experts = 0;  // rows: R of all segments
  const T* x = nullptr;                            // [R,in]
  const T* weight = nullptr;                       // [experts,out,in]
  PackedWeights* packed = nullptr;                 // copies of weight, or null
  const Accum<T>* bias = nullptr;                  // [experts,out] or null
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
