#pragma once

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>
#include <ziggurat/comm/communicator.h>
#include <ziggurat/kernels/qk_norm.h>

namespace ziggurat::ops {

using kernels::AttentionShape;
using kernels::QkNormShape;

// y [B T, (H + 2 Hkv) d] = qkv with its queries and keys divided by their root mean square (plus eps under
// the root) and multiplied by a weight, v as it is (kernels/qk_norm.h). Weights in the accumulation dtype of
// qkv: [d] each when normalised per head, else [H d] and [Hkv d].
// `heads`: ranks that share the heads of the model, of which each has as many; where the whole width is
// normalised they tell each other the sums of their rows, two numbers each. Collective, in backward too.
Var qk_norm(Tape& tape, Var qkv, QkNormShape shape, const Param& q_weight, const Param& k_weight, double eps,
            Communicator* heads = nullptr);

}  // namespace ziggurat::ops
