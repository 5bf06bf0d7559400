// Causal attention of new rows over the keys and values of their sequences' earlier rows:
//   y_h = softmax(scale q_h k^T) v over positions 0 .. position of the row, per row and head h.
// A row's key and value are put into the cache first. With rotation tables, q and k are rotated by the row's
// position (rope.h); the cache holds rotated keys.
// Floor for one row of a sequence: memory, one read of the sequence's keys and values, each head's of which
// lie one after another. For many rows: 4 (H d) positions flop a row. Rows of one sequence that follow each
// other share the reads four at a time. Sums run in an order that depends on d and the position only: a row
// has the same bits whether it came alone or with its whole prompt, on any number of threads.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/attention_shape.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct CachedAttentionKernels : OnCpu {
  static constexpr const char* kName = "cached_attention";
};

template <class T>
struct CachedAttentionArgs {
  AttentionShape shape;  // rows() new rows; batch and length are not read otherwise
  double scale = 1;
  const T* qkv = nullptr;  // [rows, width]
  // [rows] which sequence of the cache a row belongs to, and its place there: after the rows that the cache
  // has and those before it in qkv. Not checked here.
  const int32_t *sequence = nullptr, *position = nullptr;
  T *keys = nullptr, *values = nullptr;  // [sequences, kv_heads, capacity, head_dim]
  int64_t capacity = 0;
  const Accum<T>*cosine = nullptr, *sine = nullptr;  // [capacity, head_dim / 2], or null: nothing is rotated
  T* y = nullptr;                                    // [rows, H d]
  int64_t window = 0;                                // positions that a row sees at most; 0: all
};

template <Device D, class T>
void cached_attention(const CachedAttentionArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
