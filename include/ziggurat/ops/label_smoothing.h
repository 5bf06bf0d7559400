#pragma once

#include <cstdint>

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>

namespace ziggurat::ops {

struct LabelSmoothingArgs {
  int64_t vocab_size = 0;     // rows of the weight from here on are padding
  int32_t ignore_index = -1;  // a target that counts for nothing
  double epsilon = 0;         // in [0, 1)
};

// Beside ops::cross_entropy of the same x [N, C], weight [V_padded, C] and targets [N], after it: the sum
// over the counted rows of epsilon (logit of the target - mean of the logits), f64 [1] on x's device in the
// tape's memory (kernels/label_smoothing.h). While recording it puts its gradients, times token_weight, into
// x's and the weight's at once.
Tensor label_smoothing(Tape& tape, Var x, const Param& weight, const int32_t* targets,
                       const LabelSmoothingArgs& args);

}  // namespace ziggurat::ops
