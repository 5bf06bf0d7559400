#include <cstring>

#include <ziggurat/kernels/cached_attention.h>
#include <ziggurat/kernels/rope.h>
#include <ziggurat/nn/kv_cache.h>

namespace ziggurat::nn {

namespace {

int64_t reserve(const KvCacheShape& s, DType dtype) {
  const int64_t heads = 2 * s.layers * s.sequences * s.kv_heads * s.capacity * s.head_dim * size_of(dtype);
  const int64_t tables = s.capacity * s.head_dim * size_of(accum_dtype(dtype));
  return heads + tables + (2 * s.layers + 2) * Arena::kAlignment;
}

}  // namespace

KvCache::KvCache(const KvCacheShape& shape, DType dtype)
    : shape_(shape), dtype_(dtype), arena_("kv cache", reserve(shape, dtype)) {
  check(shape.sequences > 0 && shape.capacity > 0, ErrorKind::argument,
        "[kv cache] expected at least one sequence and one position, got {} and {}", shape.sequences,
        shape.capacity);
  ops::LayerCache layer;
  if (shape.rope_theta > 0) {
    const Shape table{shape.capacity, shape.head_dim / 2};
    layer.cosine = allocate(arena_, accum_dtype(dtype), table);
    layer.sine = allocate(arena_, accum_dtype(dtype), table);
    visit_kernels<kernels::CachedAttentionKernels>(layer.cosine, [&]<Device D, class A>() {
      if constexpr (!std::is_same_v<A, bf16>) {
        kernels::rotation_tables<D>(shape.rope_theta, shape.head_dim, shape.capacity, false,
                                    layer.cosine.data<A>(), layer.sine.data<A>());
      }
    });
  }
  const Shape heads{shape.sequences, shape.kv_heads, shape.capacity, shape.head_dim};
  for (int64_t i = 0; i < shape.layers; ++i) {
    layer.keys = allocate(arena_, dtype, heads);
    layer.values = allocate(arena_, dtype, heads);
    layers_.push_back(layer);
  }
}

int64_t KvCache::bytes_per_position() const {
  return 2 * shape_.layers * shape_.kv_heads * shape_.head_dim * size_of(dtype_);
}

void KvCache::copy(int64_t from, int64_t to, int64_t length) {
  check(length <= shape_.capacity, ErrorKind::argument, "[kv cache] {} positions asked, {} held", length,
        shape_.capacity);
  for (const ops::LayerCache& layer : layers_) {
    for (const Tensor& all : {layer.keys, layer.values}) {
      const Tensor source = all.rows(from, from + 1), target = all.rows(to, to + 1);
      const int64_t head = shape_.capacity * shape_.head_dim * size_of(dtype_);
      for (int64_t h = 0; h < shape_.kv_heads; ++h) {
        std::memcpy(static_cast<char*>(target.raw()) + h * head,
                    static_cast<const char*>(source.raw()) + h * head,
                    static_cast<size_t>(length * shape_.head_dim * size_of(dtype_)));
      }
    }
  }
}

}  // namespace ziggurat::nn
