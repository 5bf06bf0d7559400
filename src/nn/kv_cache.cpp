#include <ziggurat/nn/kv_cache.h>

namespace ziggurat::nn {

namespace {

int64_t bytes_of(const KvCacheShape& s, DType dtype) {
  return 2 * s.layers * (s.blocks * s.kv_heads * s.block * s.head_dim * size_of(dtype) + Arena::kAlignment);
}

}  // namespace

KvCache::KvCache(const KvCacheShape& shape, DType dtype, Device device)
    : shape_(shape), dtype_(dtype), arena_("kv cache", bytes_of(shape, dtype), device) {
  check(shape.blocks > 0 && shape.block > 0, ErrorKind::argument,
        "[kv cache] expected at least one block of one position, got {} of {}", shape.blocks, shape.block);
  const Shape heads{shape.blocks, shape.kv_heads, shape.block, shape.head_dim};
  for (int64_t i = 0; i < shape.layers; ++i) {
    layers_.push_back({allocate(arena_, dtype, heads), allocate(arena_, dtype, heads)});
  }
}

int64_t KvCache::bytes_per_position() const {
  return 2 * shape_.layers * shape_.kv_heads * shape_.head_dim * size_of(dtype_);
}

void KvCache::copy(int32_t from, int32_t to, Stream& stream) {
  for (const ops::LayerCache& layer : layers_) {
    for (const Tensor& all : {layer.keys, layer.values}) {
      ziggurat::copy(all.rows(from, from + 1), all.rows(to, to + 1), stream);
    }
  }
}

}  // namespace ziggurat::nn
