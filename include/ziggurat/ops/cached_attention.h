#pragma once

#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/attention_shape.h>
#include <ziggurat/kernels/cached_attention.h>

namespace ziggurat::ops {

using kernels::AttentionShape;
using kernels::BlockTables;

// The keys and values of one layer, in blocks that any sequences share out among them.
struct LayerCache {
  Tensor keys, values;  // [blocks, kv_heads, block, head_dim]
};

// cos and sin of rows' rotary angles, [rows, head_dim / 2] each in accum dtype (kernels/rope.h); or empty: no
// rotation.
struct Rotations {
  Tensor cosine, sine;
};
// Of rows at positions [rows], for heads whose values are of `dtype`; in the tape's memory.
Rotations rotations_of(Tape& tape, DType dtype, const int32_t* positions, int64_t rows, int64_t head_dim,
                       double theta);

// Where each row of qkv belongs.
struct CacheRows {
  const int32_t* sequence = nullptr;  // [rows] a block table
  const int32_t* position = nullptr;  // [rows] there; what it sees is cached or comes earlier in qkv
  BlockTables tables = {};
  int64_t window = 0;        // positions that a row sees, with its own; 0: all
  Rotations rotations = {};  // of the rows
};

// y [rows, H d] = causal attention of each row over its sequence so far, for rows that extend cached
// sequences; their keys and values are added to the cache. qkv [rows, (H + 2 Hkv) d] as in ops::attention,
// not yet rotated; rows = shape.rows(). For inference: has no gradient. Throws Error(argument) for a sequence
// or position that has no place in the cache, and Error(internal) in training.
Var cached_attention(Tape& tape, Var qkv, const AttentionShape& shape, double scale, const LayerCache& cache,
                     const CacheRows& rows);

}  // namespace ziggurat::ops
