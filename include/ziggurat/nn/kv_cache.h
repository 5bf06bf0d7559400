// The keys and values of every layer for sequences that are read or written token by token, in blocks.
#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/memory/arena.h>
#include <ziggurat/ops/cached_attention.h>

namespace ziggurat::nn {

struct KvCacheShape {
  int64_t layers = 0, kv_heads = 0, head_dim = 0;
  int64_t blocks = 0, block = 0;  // positions of a block
};

// 2 layers x blocks x kv_heads x block x head_dim values, reserved at once; pages are backed as blocks are
// first used. It does not know which sequence has which blocks: the rows of a forward say so.
class KvCache {
 public:
  KvCache(const KvCacheShape& shape, DType dtype, Device device);

  const KvCacheShape& shape() const { return shape_; }
  ops::LayerCache layer(int64_t layer) const { return layers_.at(static_cast<size_t>(layer)); }
  Device device() const { return arena_.device(); }
  int64_t bytes_per_position() const;  // over all layers: what attending to it reads

  // Block `to` becomes a copy of block `from`, in the order of the stream.
  void copy(int32_t from, int32_t to, Stream& stream);

 private:
  KvCacheShape shape_;
  DType dtype_;
  Arena arena_;
  std::vector<ops::LayerCache> layers_;
};

// The rows of a forward that extends cached sequences. `rows.rotations` are the model's business.
struct CachedRows {
  KvCache* cache = nullptr;
  ops::CacheRows rows = {};
};

}  // namespace ziggurat::nn
