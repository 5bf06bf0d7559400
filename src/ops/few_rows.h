// When a linear layer takes the kernel for a handful of rows.
#pragma once

#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/few_rows.h>

namespace ziggurat::ops {

// Never in training, where the recomputed forward of a segment must meet the bits of its first run and those
// of other layouts; nor on a strict stream, where a row's bits must not depend on how many rows share a call.
// On Device::cuda the matrix library has products of few rows.
inline bool reads_weights_once(Tape& tape, int64_t rows) {
  return rows <= kernels::kFewRows && !tape.micro_batch().training && !tape.stream().strict() &&
         tape.stream().device() != Device::cuda;
}

}  // namespace ziggurat::ops
