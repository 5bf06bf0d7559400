#pragma once

#include <cstdint>

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>
#include <ziggurat/ops/cross_entropy.h>

namespace ziggurat::ops {

// `loss`: those of the cross_entropy beside which it is called. epsilon in [0, 1).
//
// Beside ops::cross_entropy of the same x [N, C], weight [V_padded, C] and targets [N], after it: the sum
// over the counted rows of epsilon (logit of the target - mean of the logits), f64 [1] on x's device in the
// tape's memory (kernels/label_smoothing.h). While recording it puts its gradients, times token_weight, into
// x's and the weight's at once. Where ranks share the vocabulary: as cross_entropy, collective too.
Tensor label_smoothing(Tape& tape, Var x, const Param& weight, const int32_t* targets, const LossArgs& loss,
                       double epsilon);

}  // namespace ziggurat::ops
