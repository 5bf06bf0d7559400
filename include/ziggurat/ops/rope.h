#pragma once

#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/attention_shape.h>

namespace ziggurat::ops {

using kernels::AttentionShape;

// y [B T, (H + 2 Hkv) d] = qkv with its q and k heads rotated by their position, v as it is (kernels/rope.h
// has the formula). head_dim must be even, theta > 0. positions [B T], in [0, T): of the rows; null: 0 .. T-1
// in every sequence. They belong to the caller and must stay as they are until backward has run.
Var rope(Tape& tape, Var qkv, const AttentionShape& shape, double theta, const int32_t* positions = nullptr);

}  // namespace ziggurat::ops
