#pragma once

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/qk_norm.h>

namespace ziggurat::ops {

using kernels::AttentionShape;
using kernels::QkNormShape;

// y [B T, (H + 2 Hkv) d] = qkv with its queries and keys divided by their root mean square (plus eps under
// the root) and multiplied by a weight, v as it is (kernels/qk_norm.h). Weights in the accumulation dtype of
// qkv: [d] each when normalised per head, else [H d] and [Hkv d].
Var qk_norm(Tape& tape, Var qkv, const QkNormShape& shape, const Param& q_weight, const Param& k_weight,
            double eps);

}  // namespace ziggurat::ops
