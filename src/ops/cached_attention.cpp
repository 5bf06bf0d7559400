#include <algorithm>

#include <ops/attention_checks.h>

#include <ziggurat/kernels/rope.h>
#include <ziggurat/ops/cached_attention.h>

namespace ziggurat::ops {

namespace {

void check_cache(const Var& qkv, const AttentionShape& shape, const LayerCache& cache,
                 const CacheRows& rows) {
  const Shape& k = cache.keys.shape();
  check(k.rank() == 4 && k == cache.values.shape() && k[1] == shape.kv_heads && k[2] == rows.tables.block &&
            k[3] == shape.head_dim && cache.keys.dtype() == qkv.dtype() &&
            cache.values.dtype() == qkv.dtype(),
        ErrorKind::argument,
        "[cached_attention] expected keys and values {} [blocks, {}, {}, {}], got {} {} and {} {}",
        to_string(qkv.dtype()), shape.kv_heads, rows.tables.block, shape.head_dim,
        to_string(cache.keys.dtype()), k, to_string(cache.values.dtype()), cache.values.shape());
  if (!rows.rotations.cosine && !rows.rotations.sine) return;
  const Shape angles{shape.rows(), shape.head_dim / 2};
  check(rows.rotations.cosine.shape() == angles && rows.rotations.sine.shape() == angles &&
            shape.head_dim % 2 == 0,
        ErrorKind::argument, "[cached_attention] expected rotations {}, got {} and {}", angles,
        rows.rotations.cosine.shape(), rows.rotations.sine.shape());
}

void check_rows(const CacheRows& rows, int64_t n, int64_t blocks) {
  const BlockTables& tables = rows.tables;
  for (int64_t r = 0; r < n; ++r) {
    const int32_t s = rows.sequence[r], at = rows.position[r];
    check(0 <= s && s < tables.sequences, ErrorKind::argument,
          "[cached_attention] row {} belongs to sequence {}, but there are block tables for {}", r, s,
          tables.sequences);
    const int64_t held = tables.begin[s + 1] - tables.begin[s], first = tables.dropped[s] * tables.block,
                  end = first + held * tables.block,
                  seen = rows.window == 0 ? 0 : std::max<int64_t>(0, at + 1 - rows.window);
    check(first <= seen && 0 <= at && at < end, ErrorKind::argument,
          "[cached_attention] row {} is at position {} and sees from {} on, but the cache holds positions {} "
          "to {} of sequence {}",
          r, at, seen, first, end, s);
    const int32_t block = tables.block_of(s, at);
    check(0 <= block && block < blocks, ErrorKind::argument,
          "[cached_attention] row {} lies in block {}, but the cache has {}", r, block, blocks);
  }
}

}  // namespace

Rotations rotations_of(Tape& tape, DType dtype, const int32_t* positions, int64_t rows, int64_t head_dim,
                       double theta) {
  Rotations angles;
  angles.cosine = tape.save(accum_dtype(dtype), {rows, head_dim / 2});
  angles.sine = tape.save(accum_dtype(dtype), {rows, head_dim / 2});
  visit_kernels<kernels::CachedAttentionKernels>(angles.cosine, [&]<Device D, class A>() {
    if constexpr (!std::is_same_v<A, bf16>) {
      kernels::rotation_rows<D>(theta, head_dim, positions, rows, angles.cosine.data<A>(),
                                angles.sine.data<A>(), tape.stream());
    }
  });
  return angles;
}

Var cached_attention(Tape& tape, Var qkv, const AttentionShape& shape, double scale, const LayerCache& cache,
                     const CacheRows& rows) {
  check_qkv("cached_attention", qkv, shape);
  check_cache(qkv, shape, cache, rows);
  const Device device = qkv.value().device();
  if (device == Device::cpu) check_rows(rows, shape.rows(), cache.keys.dim(0));  // elsewhere by who made them
  check_head_dim("cached_attention", shape, device);
  check(!tape.recording(), ErrorKind::internal,
        "[cached_attention] has no backward: begin the tape with "
        "training = false");
  const Var y = tape.output(qkv.dtype(), {shape.rows(), shape.heads * shape.head_dim}, false);
  visit_kernels<kernels::CachedAttentionKernels>(qkv.value(), [&]<Device D, class T>() {
    using A = Accum<T>;
    const Rotations& angles = rows.rotations;
    kernels::cached_attention<D>(
        kernels::CachedAttentionArgs<T>{
            shape, scale, qkv.value().data<T>(), rows.sequence, rows.position, rows.tables, rows.window,
            cache.keys.data<T>(), cache.values.data<T>(), angles.cosine ? angles.cosine.data<A>() : nullptr,
            angles.sine ? angles.sine.data<A>() : nullptr, y.value().data<T>()},
        tape.workspace(), tape.stream());
  });
  return y;
}

}  // namespace ziggurat::ops
