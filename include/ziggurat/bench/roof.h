// The speed of light of this machine: what its matrix products and its memory reach when nothing else is in
// the way. Each is measured until it stands still, for at most a second a way.
#pragma once

#include <ziggurat/tensor/tensor.h>

namespace ziggurat::bench {

// FLOP/s of products of `dtype` operands that stay in the caches, on this process's threads: the best of the
// ways in which a training step multiplies.
double measure_gemm_roof(DType dtype);

// Bytes/s of y += x (two reads and a write) on arrays far beyond the caches.
double measure_memory_roof();

// Bytes/s of only reading, each thread its own piece of an array far beyond the caches.
// What generating text, which reads every weight once a token, is measured against.
double measure_read_roof();

}  // namespace ziggurat::bench
