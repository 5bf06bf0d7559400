// Causal attention of new rows over the keys and values of their sequences' earlier rows, which lie in blocks
// of a cache (Kwon et al. 2023, PagedAttention):
//   y_h = softmax(scale q_h k^T) v over the last `window` positions up to the row's own, per row and head h.
// A row's key and value are put into the cache first. With rotations, q and k are rotated by the row's
// position (rope.h); the cache holds rotated keys.
// Floor for one row of a sequence: memory, one read of the keys and values that it sees; those of a block and
// head lie one after another. For many rows: 4 (H d) positions flop a row. Rows of one sequence that follow
// each other share the reads four at a time. Sums run in an order that depends on d and the number of
// positions only: a row has the same bits whether it came alone or with its whole prompt, in whatever blocks,
// on any number of threads.
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
  using Cuda = Dtypes<float, bf16>;
};

// Which blocks of a cache hold each sequence. Block table s, blocks[begin[s]] up to blocks[begin[s + 1]],
// covers `block` positions each, from position dropped[s] * block on: what lies before has been let go.
struct BlockTables {
  int64_t block = 1, sequences = 0;
  const int32_t* blocks = nullptr;
  const int32_t* begin = nullptr;    // [sequences + 1]
  const int32_t* dropped = nullptr;  // [sequences] blocks

  constexpr int32_t block_of(int32_t sequence, int64_t position) const {
    return blocks[begin[sequence] + position / block - dropped[sequence]];
  }
};

template <class T>
struct CachedAttentionArgs {
  AttentionShape shape;  // rows() new rows; batch and length are not read otherwise
  double scale = 1;
  const T* qkv = nullptr;  // [rows, width]
  // [rows] which sequence a row belongs to, and its place there: after the rows that the cache has and those
  // before it in qkv. Neither they nor the tables are checked here.
  const int32_t *sequence = nullptr, *position = nullptr;
  BlockTables tables;
  int64_t window = 0;                                // positions that a row sees, with its own; 0: all
  T *keys = nullptr, *values = nullptr;              // [blocks, kv_heads, block, head_dim]
  const Accum<T>*cosine = nullptr, *sine = nullptr;  // [rows, head_dim / 2], or null: nothing is rotated
  T* y = nullptr;                                    // [rows, H d]
};

template <Device D, class T>
void cached_attention(const CachedAttentionArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
