#pragma once

#include <ziggurat/autograd/tape.h>

namespace ziggurat::ops {

// y [N, C] = a + sigmoid(gate_logits) b, one gate a row: experts and the shared expert beside them, as in
// Qwen2-MoE (arXiv 2407.10671, and its authors' code). a and b [N, C] alike; gate_logits [N, 1] in their
// accumulation dtype.
Var gated_add(Tape& tape, Var a, Var b, Var gate_logits);

}  // namespace ziggurat::ops
