#pragma once

#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/attention_shape.h>

namespace ziggurat::ops {

using kernels::AttentionShape;

// The keys and values of one layer for a number of sequences, each up to `capacity` positions.
struct LayerCache {
  Tensor keys, values;  // [sequences, kv_heads, capacity, head_dim]
  Tensor cosine, sine;  // [capacity, head_dim / 2] in accum dtype (kernels/rope.h); or empty: no rotation
};

// Where each row of qkv belongs; [rows] each.
struct CacheRows {
  const int32_t* sequence = nullptr;
  const int32_t* position = nullptr;  // in that sequence; all earlier ones are cached or come earlier in qkv
};

// y [rows, H d] = causal attention of each row over its sequence so far, for rows that extend cached
// sequences, or with a window over the last so many positions, its own the last; their keys and values are
// added to the cache. qkv [rows, (H + 2 Hkv) d] as in ops::attention, not yet rotated; rows = shape.rows().
// For inference: has no gradient. Throws Error(argument) for a sequence or position that the cache has no
// place for, and Error(internal) in training.
Var cached_attention(Tape& tape, Var qkv, const AttentionShape& shape, double scale, const LayerCache& cache,
                     const CacheRows& rows, int64_t window = 0);

}  // namespace ziggurat::ops
