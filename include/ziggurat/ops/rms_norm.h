#pragma once

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>

namespace ziggurat::ops {

// y [N, C] = x / sqrt(mean(x^2) + eps) weight, with the mean over the row; weight [C] in the accumulation
// dtype of x. Zhang and Sennrich 2019, eq. 4.
Var rms_norm(Tape& tape, Var x, const Param& weight, double eps);

}  // namespace ziggurat::ops
