#pragma once

#include <ziggurat/ops/cross_entropy.h>

namespace ziggurat::ops {

// A vocabulary head and what goes into it: logits are hidden weight^T.
struct TeacherHead {
  Tensor hidden;  // [N, C of the teacher], of any dtype that has the accumulation dtype of the student's
  const Param* weight = nullptr;  // [V padded as the teacher pads it, C of the teacher]
};

struct DistillationArgs {
  double temperature = 1;
  const double* weight = nullptr;  // [1] on x's device: of the divergence in the loss
};

// What a batch's tokens sum up to: LossResult's members, then weight T^2 KL(teacher || student) of the
// counted tokens.
inline constexpr int64_t kDistillationSums = kLossSums + 1;

// cross_entropy(), whose loss is extended by weight T^2 KL(teacher || student), the divergence of next-token
// distributions at a temperature T (kernels/distillation.h). The student's logits are computed once for both.
// Neither head's exist but for a chunk of rows at any time. The teacher gets no gradient.
//
// Where ranks share the vocabulary (args.vocabulary), both weights are parts of tables with as many rows, and
// the hidden states of both models are whole on each: as of cross_entropy(). Collective.
//
// Returns f64 [kDistillationSums] as cross_entropy() does. args.token_losses: as there.
Tensor distillation(Tape& tape, Var x, const Param& weight, const int32_t* targets, const LossArgs& args,
                    const TeacherHead& teacher, const DistillationArgs& distil);

}  // namespace ziggurat::ops
