#pragma once

#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/attention_shape.h>

namespace ziggurat::ops {

using kernels::AttentionShape;

// Of each row of each sequence, [B T] on the device of qkv. They belong to the caller and must stay as they
// are until backward has run.
struct VisibleKeys {
  const int32_t* first = nullptr;  // null: 0
  const int32_t* last = nullptr;   // null: the row itself
  int64_t window = 0;              // not 0: row i sees none before i - window + 1
};

// Which of a layer's heads the shape's are, where ranks share them; by default all.
struct HeadPlace {
  int64_t heads = 0;  // of the layer; 0: the shape's
  int64_t first = 0;
};

// y [B T, H d] = causal attention of qkv [B T, (H + 2 Hkv) d], a row holding q | k | v (attention_shape.h):
// per sequence and head, dropout(softmax(scale q k^T)) v. `dropout` acts in training only; its mask is a
// function of (seed, layer, micro-batch, element).
// keys: row i of a sequence sees its keys first_i..last_i, 0 <= first_i <= i <= last_i < T (checked on the
// CPU only). On Device::cuda head_dim is at most kernels::kAttentionMaxHeadDimOnCuda.
Var attention(Tape& tape, Var qkv, const AttentionShape& shape, double scale, double dropout, int64_t layer,
              const VisibleKeys& keys = {}, const HeadPlace& place = {});

}  // namespace ziggurat::ops
