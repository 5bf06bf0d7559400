// What a parameter starts with: a function of (seed, name, element), never of the layout.
#pragma once

#include <cstdint>

#include <ziggurat/nn/param_store.h>

namespace ziggurat::nn {

// Fills `values`, in memory of the host, with the initial values of the global tensor from its element
// `first` on, row by row: drawn as f64 or f32, and rounded for bf16.
void draw_initial(const ParamSpec& spec, uint64_t seed, int64_t first, const Tensor& values);

}  // namespace ziggurat::nn
