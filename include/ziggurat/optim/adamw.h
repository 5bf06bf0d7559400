// One AdamW step over flat slabs.
#pragma once

#include <span>

#include <ziggurat/optim/optimizer_config.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

// A piece [begin, end) of the slabs with one rule.
struct ParamRange {
  int64_t begin = 0, end = 0;
  bool decay = true;  // weight decay applies
  // What its bf16 are rounded with: a parameter's name, and the element of it at `begin`.
  uint64_t name = 0;
  int64_t first = 0;
};

// Slabs [n] of f32, or all of f64 (gradient-check models). Beside f32 gradients masters, or both moments, may
// be bf16.
struct FlatParams {
  Tensor master, gradient, moment1, moment2;
  Tensor compute;  // bf16 [n], rewritten where a range covers it; or empty
};

struct AdamWStep {
  double lr = 0;
  const double* grad_scale = nullptr;  // [1] on the slabs' device: kernels/clip.h
  int64_t step = 1;                    // updates so far, this one included; >= 1
  uint64_t seed = 0;                   // of the rounding to bf16
  double decay_scale = 1;              // of the config's weight decay
};

// Formula: kernels/adamw.h. Updates the elements of `ranges` (which must not overlap) and leaves the rest
// alone. Throws Error(internal) for slabs or ranges that do not fit.
void adamw_step(const FlatParams& params, std::span<const ParamRange> ranges, const OptimizerConfig& config,
                const AdamWStep& step, Stream& stream);

}  // namespace ziggurat
