// A parameter as the ops see it: what forward reads and where backward adds. Storage and names live in
// nn::ParamStore.
#pragma once

#include <utility>

#include <ziggurat/kernels/packed_weights.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

struct Param {
  Tensor value;  // compute dtype for matrices and embeddings; accum_dtype for 1-D parameters (norms, biases)
  Tensor grad;   // same shape, accum_dtype; backward only ever adds to it; empty: frozen

  // Copies for products with `value` [out, in], or with each of its matrices [count, out, in]; null: there
  // are none.
  kernels::PackedWeights* packed = nullptr;

  // `value` lies in panels (kernels/panel_linear.h), which products of inference read. All else that reads it
  // knows nothing of them.
  bool panels = false;

  // Expert parameters in strict mode keep one gradient per source rank of the expert-parallel group, so that
  // the sum over sources can be taken in a fixed order. Elements between two sources; 0: all sources share
  // `grad`.
  int64_t source_stride = 0;

  // Set while `grad` counts as zeros but its memory holds anything: the first product of the step writes it
  // rather than adding to it. Null: grad starts as zeros.
  bool* unwritten = nullptr;

  bool trainable() const { return static_cast<bool>(grad); }

  // For an op that goes on to write all of grad, or to add to it: whether it must add.
  bool must_add() const { return unwritten == nullptr || !std::exchange(*unwritten, false); }
  // For all others, before they add.
  void settle_grad(Stream& stream) const {
    if (!must_add()) fill_zero(grad, stream);
  }

  Tensor grad_of_source(int64_t source) const {
    char* base = static_cast<char*>(grad.raw()) + source * source_stride * size_of(grad.dtype());
    return Tensor(base, grad.dtype(), grad.shape(), grad.device());
  }
};

}  // namespace ziggurat
