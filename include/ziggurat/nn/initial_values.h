// What a parameter starts with: a function of (seed, name, element), never of the layout.
#pragma once

#include <cstdint>

#include <ziggurat/nn/param_store.h>

namespace ziggurat::nn {

// Fills `values` (a dtype of masters, on the CPU or another device with memory) with the initial values of
// the global tensor from its element `first` on, row by row.
void draw_initial(const ParamSpec& spec, uint64_t seed, int64_t first, const Tensor& values);

}  // namespace ziggurat::nn
