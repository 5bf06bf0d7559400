// A parameter as the ops see it: what forward reads and where backward adds. Storage and names live in
// nn::ParamStore.
#pragma once

#include <cstdint>
#include <utility>

#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

// How backward stands with a parameter of a store, in the micro-batch under way.
struct ParamUse {
  int number = 0;   // of the parameter, in the order of registration
  int to_come = 0;  // recorded steps of backward that will still write its gradient
};

struct Param {
  Tensor value;  // compute dtype for matrices and embeddings; accum_dtype for 1-D parameters (norms, biases)
  Tensor grad;   // same shape, accum_dtype; backward only ever adds to it

  // Another number whenever `value` changes, and never one that any parameter of this process had before: by
  // it a backend knows whether what it keeps of a weight is up to date. Null: nobody tells.
  const uint64_t* version = nullptr;

  // `value` lies in panels (kernels/panel_linear.h), which products of inference read. All else that reads it
  // knows nothing of them.
  bool panels = false;
  // With panels: they are numbers of 8 bits, and `value`, of its dtype and shape, has their memory
  // (kernels::Int8Weights).
  bool int8 = false;

  // Expert parameters in strict mode keep one gradient per source rank of the expert-parallel group, so that
  // the sum over sources can be taken in a fixed order. Elements between two sources; 0: all sources share
  // `grad`.
  int64_t source_stride = 0;

  // Set while `grad` counts as zeros but its memory holds anything: the first product of the step writes it
  // rather than adding to it. Null: grad starts as zeros.
  bool* unwritten = nullptr;

  // Null: frozen, or of no store.
  ParamUse* use = nullptr;

  // With a use, the gradient may have no memory until backward comes to it (see GradientFollower).
  bool trainable() const { return grad || use != nullptr; }

  // For kernels; 0: they keep nothing of the weight. Frozen ones are read for a while, or a little at a time.
  uint64_t trained_version() const { return trainable() && version != nullptr ? *version : 0; }

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
