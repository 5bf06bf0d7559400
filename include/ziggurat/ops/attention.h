#pragma once

#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/attention_shape.h>

namespace ziggurat::ops {

using kernels::AttentionShape;

// Which of a layer's heads the shape's are, where ranks share them; by default all.
struct HeadPlace {
  int64_t heads = 0;  // of the layer; 0: the shape's
  int64_t first = 0;
};

// y [B T, H d] = causal attention of qkv [B T, (H + 2 Hkv) d], a row holding q | k | v (attention_shape.h):
// per sequence and head, dropout(softmax(scale q k^T)) v. `dropout` acts in training only; its mask is a
// function of (seed, layer, micro-batch, element).
// first_key [B T], on the device of qkv: row i of a sequence sees its keys first_key_i..i, 0 <= first_key_i
// <= i (checked on the CPU only); null: 0..i. It belongs to the caller and must stay as it is until backward
// has run. On Device::cuda head_dim is at most kernels::kAttentionMaxHeadDimOnCuda.
Var attention(Tape& tape, Var qkv, const AttentionShape& shape, double scale, double dropout, int64_t layer,
              const int32_t* first_key = nullptr, const HeadPlace& place = {});

}  // namespace ziggurat::ops
