// The layout that attention and rotary embeddings share: qkv [batch * length, width], a row holding
// q (heads * head_dim) | k (kv_heads * head_dim) | v (kv_heads * head_dim). Query head h reads key and value
// head h / (heads / kv_heads) (grouped queries, Ainslie et al. 2023; kv_heads = heads: multi-head).
#pragma once

#include <cstdint>

namespace ziggurat::kernels {

// Its functions are constexpr: device code calls them too.
struct AttentionShape {
  int64_t batch = 0, length = 0, heads = 0, kv_heads = 0, head_dim = 0;

  constexpr int64_t rows() const { return batch * length; }
  constexpr int64_t width() const { return (heads + 2 * kv_heads) * head_dim; }
  constexpr int64_t group() const { return heads / kv_heads; }     // query heads of one key head
  constexpr int64_t k_column() const { return heads * head_dim; }  // where k starts in a row
  constexpr int64_t v_column() const { return (heads + kv_heads) * head_dim; }
};

}  // namespace ziggurat::kernels
