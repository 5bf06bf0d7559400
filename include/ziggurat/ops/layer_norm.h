#pragma once

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>

namespace ziggurat::ops {

// y [N, C] = (x - mean) / sqrt(variance + eps) weight + bias, with mean and (biased) variance over the row.
// weight and bias [C] in the accumulation dtype of x. Ba, Kiros and Hinton 2016, eq. 4.
Var layer_norm(Tape& tape, Var x, const Param& weight, const Param& bias, double eps);

}  // namespace ziggurat::ops
