// The keys and values of every layer for sequences that are read or written token by token.
#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/memory/arena.h>
#include <ziggurat/ops/cached_attention.h>

namespace ziggurat::nn {

struct KvCacheShape {
  int64_t layers = 0, kv_heads = 0, head_dim = 0;
  int64_t sequences = 0, capacity = 0;  // positions of each sequence
  double rope_theta = 0.0;              // 0: no rotary positions
};

// 2 layers x sequences x kv_heads x capacity x head_dim values, reserved at once; pages are backed as
// positions are first used. It does not know how long its sequences are: the rows of a forward say where they
// belong.
class KvCache {
 public:
  KvCache(const KvCacheShape& shape, DType dtype);

  const KvCacheShape& shape() const { return shape_; }
  ops::LayerCache layer(int64_t layer) const { return layers_.at(static_cast<size_t>(layer)); }
  int64_t bytes_per_position() const;  // of one sequence, over all layers: what attending to it reads

  // Sequence `to` becomes the first `length` positions of sequence `from`.
  void copy(int64_t from, int64_t to, int64_t length);

 private:
  KvCacheShape shape_;
  DType dtype_;
  Arena arena_;
  std::vector<ops::LayerCache> layers_;
};

}  // namespace ziggurat::nn
