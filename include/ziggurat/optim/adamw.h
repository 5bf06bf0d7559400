// One AdamW step over flat slabs, and gradient clipping.
#pragma once

#include <span>

#include <ziggurat/optim/optimizer_config.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

// A piece [begin, end) of the slabs with one rule.
struct ParamRange {
  int64_t begin = 0, end = 0;
  bool decay = true;  // weight decay applies
};

// Slabs [n] of f32, or all of f64 (gradient-check models).
struct FlatParams {
  Tensor master, gradient, moment1, moment2;
  Tensor compute;  // bf16 [n], rewritten where a range covers it; or empty
};

struct AdamWStep {
  double lr = 0;
  double grad_scale = 1;  // from clip()
  int64_t step = 1;       // updates so far, this one included; >= 1
};

// Formula: kernels/adamw.h. Updates the elements of `ranges` (which must not overlap) and leaves the rest
// alone. Throws Error(internal) for slabs or ranges that do not fit.
void adamw_step(const FlatParams& params, std::span<const ParamRange> ranges, const OptimizerConfig& config,
                const AdamWStep& step, Stream& stream);

// Sum of squares of a flat f32 or f64 tensor; the same bits on any number of threads.
double sum_of_squares(const Tensor& flat, Stream& stream);

struct Clip {
  double norm = 0;   // L2 norm of all gradients
  double scale = 1;  // for AdamWStep::grad_scale
};

// `sum` is the sum of squares over all parameters, each counted once. scale = min(1, max_norm / norm),
// exactly (Pascanu et al. 2013, arXiv 1211.5063, algorithm 1); max_norm 0 = no clipping. When the norm is not
// finite, so is the scale: skip the step.
Clip clip(double sum, double max_norm);

}  // namespace ziggurat
