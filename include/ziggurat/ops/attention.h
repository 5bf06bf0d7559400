#pragma once

#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/attention_shape.h>

namespace ziggurat::ops {

using kernels::AttentionShape;

// y [B T, H d] = causal attention of qkv [B T, (H + 2 Hkv) d], a row holding q | k | v (attention_shape.h):
// per sequence and head, dropout(softmax(scale q k^T)) v. `dropout` acts in training only; its mask is a
// function of (seed, layer, micro-batch, element).
Var attention(Tape& tape, Var qkv, const AttentionShape& shape, double scale, double dropout, int64_t layer);

}  // namespace ziggurat::ops
