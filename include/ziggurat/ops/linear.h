#pragma once

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/bias_activation.h>

namespace ziggurat::ops {

using kernels::Activation;

// y [N, out] = activation(x [N, in] weight^T + bias); weight [out, in], bias [out] or null.
Var linear(Tape& tape, Var x, const Param& weight, const Param* bias = nullptr,
           Activation activation = Activation::none);

// y [N, out] = x [N, in] weight^T in the accumulation dtype: the scores of a vocabulary, whose likeliest
// tokens bf16 could not tell apart. For inference: has no gradient, and throws Error(internal) in training.
Var logits(Tape& tape, Var x, const Param& weight);

}  // namespace ziggurat::ops
