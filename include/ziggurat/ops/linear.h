#pragma once

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/bias_activation.h>

namespace ziggurat::ops {

using kernels::Activation;

// y [N, out] = activation(x [N, in] weight^T + bias); weight [out, in], bias [out] or null.
Var linear(Tape& tape, Var x, const Param& weight, const Param* bias = nullptr,
           Activation activation = Activation::none);

}  // namespace ziggurat::ops
