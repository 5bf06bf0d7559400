#pragma once

#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/attention_shape.h>

namespace ziggurat::ops {

using kernels::AttentionShape;

// y [B T, (H + 2 Hkv) d] = qkv with its q and k heads rotated by their position 0 .. T-1 in the sequence, v
// as it is (kernels/rope.h has the formula). head_dim must be even, theta > 0.
Var rope(Tape& tape, Var qkv, const AttentionShape& shape, double theta);

}  // namespace ziggurat::ops
