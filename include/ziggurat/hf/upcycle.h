// A dense model as the start of one with experts (sparse upcycling, arXiv 2212.05055).
#pragma once

#include <ziggurat/model/model_config.h>

namespace ziggurat::hf {

struct Upcycling {
  int64_t experts = 0;  // of each layer that gets some; 0: no upcycling
  int64_t every = 2;    // layers every, 2 every, ... get experts
  int64_t top_k = 2;
  bool residual = false;  // keep the MLP beside them
};

// Each expert starts as a copy of its layer's MLP. Its weights sum to 1 (renormalise: chosen; a residual mix
// by softmax) and no token is dropped (drop: none), so the model computes what the dense one does, up to
// rounding. With top_k 1 the router's only weight is always 1, so the language model's loss would never teach
// it; hence 2. Throws Error(argument) where there is no layer to give experts, or the model has some already.
model::ModelConfig upcycled(const model::ModelConfig& dense, const Upcycling& upcycling);

}  // namespace ziggurat::hf
