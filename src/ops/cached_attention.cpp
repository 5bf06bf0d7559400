#include <ops/attention_checks.h>

#include <ziggurat/kernels/cached_attention.h>
#include <ziggurat/ops/cached_attention.h>

namespace ziggurat::ops {

namespace {

void check_cache(const Var& qkv, const AttentionShape& shape, const LayerCache& cache) {
  const Shape& k = cache.keys.shape();
  check(k.rank() == 4 && k == cache.values.shape() && k[1] == shape.kv_heads && k[3] == shape.head_dim &&
            cache.keys.dtype() == qkv.dtype() && cache.values.dtype() == qkv.dtype(),
        ErrorKind::argument,
        "[cached_attention] expected keys and values {} [sequences, {}, capacity, {}], got {} {} and {} {}",
        to_string(qkv.dtype()), shape.kv_heads, shape.head_dim, to_string(cache.keys.dtype()), k,
        to_string(cache.values.dtype()), cache.values.shape());
  if (!cache.cosine && !cache.sine) return;
  const Shape table{k[2], shape.head_dim / 2};
  check(cache.cosine.shape() == table && cache.sine.shape() == table && shape.head_dim % 2 == 0,
        ErrorKind::argument, "[cached_attention] expected rotation tables {}, got {} and {}", table,
        cache.cosine.shape(), cache.sine.shape());
}

void check_rows(const CacheRows& rows, int64_t n, int64_t sequences, int64_t capacity) {
  for (int64_t r = 0; r < n; ++r) {
    check(0 <= rows.sequence[r] && rows.sequence[r] < sequences, ErrorKind::argument,
          "[cached_attention] row {} belongs to sequence {}, but the cache holds {}", r, rows.sequence[r],
          sequences);
    check(0 <= rows.position[r] && rows.position[r] < capacity, ErrorKind::argument,
          "[cached_attention] row {} is at position {}, but the cache holds {} positions a sequence: shorten "
          "the "
          "context",
          r, rows.position[r], capacity);
  }
}

}  // namespace

Var cached_attention(Tape& tape, Var qkv, const AttentionShape& shape, double scale, const LayerCache& cache,
                     const CacheRows& rows, int64_t window) {
  check_qkv("cached_attention", qkv, shape);
  check_cache(qkv, shape, cache);
  check_rows(rows, shape.rows(), cache.keys.dim(0), cache.keys.dim(2));
  check(!tape.recording(), ErrorKind::internal,
        "[cached_attention] has no backward: begin the tape with "
        "training = false");
  const Var y = tape.output(qkv.dtype(), {shape.rows(), shape.heads * shape.head_dim}, false);
  visit_kernels<kernels::CachedAttentionKernels>(qkv.value(), [&]<Device D, class T>() {
    using A = Accum<T>;
    kernels::cached_attention<D>(
        kernels::CachedAttentionArgs<T>{
            shape, scale, qkv.value().data<T>(), rows.sequence, rows.position, cache.keys.data<T>(),
            cache.values.data<T>(), cache.keys.dim(2), cache.cosine ? cache.cosine.data<A>() : nullptr,
            cache.sine ? cache.sine.data<A>() : nullptr, y.value().data<T>(), window},
        tape.workspace(), tape.stream());
  });
  return y;
}

}  // namespace ziggurat::ops
