#pragma once

#include <cstdint>

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>

namespace ziggurat::ops {

// logits [N, E] in the accumulation dtype of x = (x [N, C] * noise) weight^T + bias, all of it computed in
// that dtype: routing decides by small differences. weight [E, C] and bias [E] (or null) in that dtype. noise
// ~ U(1 - jitter_eps, 1 + jitter_eps) per element (n C + c of the stream router_jitter of `layer`), in
// training only; 0 <= jitter_eps < 1, 0: none.
Var router_logits(Tape& tape, Var x, const Param& weight, const Param* bias, double jitter_eps,
                  int64_t layer);

}  // namespace ziggurat::ops
