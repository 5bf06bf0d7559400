#pragma once

#include <ziggurat/autograd/tape.h>

namespace ziggurat::ops {

// y [N, C] = c0 a + c1 b, with c [N, 2] = softmax(coefficient_logits) over the last dim: the learned mix of a
// residual MoE layer's two branches (Rajbhandari et al. 2022, DeepSpeed-MoE, section 4.1.1, as its authors'
// code has it). a and b [N, C] alike; coefficient_logits [N, 2] in their accumulation dtype.
Var mix(Tape& tape, Var a, Var b, Var coefficient_logits);

}  // namespace ziggurat::ops
