// The speed of light of this machine: what its matrix products reach when nothing else is in the way.
#pragma once

#include <ziggurat/tensor/tensor.h>

namespace ziggurat::train {

// FLOP/s of a 1152 x 1152 x 1152 product of `dtype` operands on this process's threads: the best of a few,
// about 0.2 s.
double measure_gemm_roof(DType dtype);

// Bytes/s of y += x (two reads and a write) on arrays far beyond the caches: the best of a few.
double measure_memory_roof();

// Bytes/s of only reading, each thread its own piece of an array far beyond the caches: the best of a few.
// What generating text, which reads every weight once a token, is measured against.
double measure_read_roof();

}  // namespace ziggurat::train
