// First a block puts a new row's keys and values into the cache. Then a block takes one query head of up to
// four rows that follow each other: its warps meet the positions that these see in fours, every eighth four
// each, with a running maximum and sum a row, and their parts are added up in order. So what is added when
// depends on a row's position alone. The lanes of a warp read a key or value side by side. Floor: memory, one
// read of the keys and values that a row sees; the query heads of a key head read them from the L2 cache
// after the first. A prompt's rows have 4 FLOPs for each byte of bf16 that they read from there, by FMAs: it
// is not read as fast as tensor cores would.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/attention.h>
#include <ziggurat/kernels/cached_attention.h>

namespace ziggurat::kernels {

namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarp;
constexpr int kAtOnce = 4;    // positions of a warp
constexpr int kTogether = 4;  // rows

// Element e of a head, rotated to its row's position; rounded to T, as the rotation of a whole batch does.
template <class T>
__device__ __forceinline__ float rotated(const CachedAttentionArgs<T>& g, int64_t row, const T* head, int e) {
  const float x = to_float(head[e]);
  if (g.cosine == nullptr) return x;
  const int half = static_cast<int>(g.shape.head_dim) / 2, pair = e % half;
  const float other = to_float(head[e < half ? e + half : e - half]);
  const float c = g.cosine[row * half + pair], s = g.sine[row * half + pair];
  return to_float(rounded<T>(e < half ? x * c - other * s : x * c + other * s));
}

// Where a position of a sequence lies in the cache.
template <class T>
__device__ __forceinline__ int64_t place_of(const CachedAttentionArgs<T>& g, int32_t sequence,
                                            int64_t position, int64_t key_head) {
  const int64_t block = g.tables.block_of(sequence, position) * g.shape.kv_heads + key_head;
  return (block * g.tables.block + position % g.tables.block) * g.shape.head_dim;
}

template <class T>
__global__ void __launch_bounds__(kThreads) cache_rows_kernel(CachedAttentionArgs<T> g) {
  const int64_t row = blockIdx.x;
  const int d = static_cast<int>(g.shape.head_dim), all = static_cast<int>(g.shape.kv_heads) * d;
  const T* const of_row = g.qkv + row * g.shape.width();
  const int32_t sequence = g.sequence[row], position = g.position[row];
  for (int i = static_cast<int>(threadIdx.x); i < all; i += kThreads) {
    const int head = i / d, e = i % d;
    const int64_t at = place_of(g, sequence, position, head) + e;
    g.keys[at] = rounded<T>(rotated(g, row, of_row + g.shape.k_column() + head * d, e));
    g.values[at] = of_row[g.shape.v_column() + i];
  }
}

// Rows that follow each other in one sequence, up to one at a multiple of kTogether: where a row is cut off
// from the one before it does not depend on what else is read. None: the row belongs to the one before.
template <class T>
__device__ __forceinline__ int rows_together(const CachedAttentionArgs<T>& g, int64_t row) {
  const auto follows = [&](int64_t r) {
    return g.position[r] % kTogether != 0 && g.sequence[r] == g.sequence[r - 1] &&
           g.position[r] == g.position[r - 1] + 1;
  };
  if (row > 0 && follows(row)) return 0;
  int n = 1;
  while (row + n < g.shape.rows() && follows(row + n)) ++n;
  return n;
}

// kOwn: elements of a head that a lane has.
template <class T, int kOwn>
__global__ void __launch_bounds__(kThreads) cached_attention_kernel(CachedAttentionArgs<T> g) {
  const int64_t row = blockIdx.x, head = blockIdx.y, key_head = head / g.shape.group();
  const int rows = rows_together(g, row);
  if (rows == 0) return;
  const int d = static_cast<int>(g.shape.head_dim), lane = static_cast<int>(threadIdx.x) % kWarp,
            warp = static_cast<int>(threadIdx.x) / kWarp;
  const int32_t sequence = g.sequence[row], position = g.position[row];
  // Row r sees the positions from first(r) to position + r.
  const int window = g.window == 0 ? 0x7fffffff : static_cast<int>(g.window);
  const auto first = [&](int r) { return max(0, position + r - window + 1); };
  const int end = position + rows;

  float q[kTogether][kOwn], y[kTogether][kOwn] = {}, top[kTogether], sum[kTogether] = {};
#pragma unroll
  for (int r = 0; r < kTogether; ++r) {
    top[r] = Maximum::kNeutral<float>;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int e = i * kWarp + lane;
      const T* const of_head = g.qkv + (row + r) * g.shape.width() + head * d;
      q[r][i] = r < rows && e < d ? static_cast<float>(g.scale) * rotated(g, row + r, of_head, e) : 0.0f;
    }
  }
  // The warp's fours of positions are those whose number is its own, counted round.
  const int first_four = first(0) / kAtOnce, skipped = (warp - first_four % kWarps + kWarps) % kWarps;
#pragma unroll 1
  for (int begin = (first_four + skipped) * kAtOnce; begin < end; begin += kWarps * kAtOnce) {
    float score[kTogether][kAtOnce], values[kAtOnce][kOwn];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int at = begin + u;
      const bool seen = at >= first(0) && at < end;
      const int64_t place = seen ? place_of(g, sequence, at, key_head) : 0;
      float key[kOwn];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const int e = i * kWarp + lane;
        key[i] = seen && e < d ? to_float(g.keys[place + e]) : 0.0f;
        values[u][i] = seen && e < d ? to_float(g.values[place + e]) : 0.0f;
      }
#pragma unroll
      for (int r = 0; r < kTogether; ++r) {
        score[r][u] = Maximum::kNeutral<float>;
        if (r >= rows || at < first(r) || at > position + r) continue;
        float dot = 0;
#pragma unroll
        for (int i = 0; i < kOwn; ++i) dot += q[r][i] * key[i];
        score[r][u] = warp_sum(dot);
      }
    }
#pragma unroll
    for (int r = 0; r < kTogether; ++r) {
      if (r >= rows) continue;
      float next = top[r];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) next = fmaxf(next, score[r][u]);
      const float reference = next == Maximum::kNeutral<float> ? 0.0f : next;  // it has seen none yet
      const float shrink = expf(top[r] - reference);
      top[r] = next;
      sum[r] *= shrink;
#pragma unroll
      for (int i = 0; i < kOwn; ++i) y[r][i] *= shrink;
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        const float p = expf(score[r][u] - reference);
        sum[r] += p;
#pragma unroll
        for (int i = 0; i < kOwn; ++i) y[r][i] += p * values[u][i];
      }
    }
  }

  __shared__ float tops[kTogether][kWarps], sums[kTogether][kWarps], parts[kTogether][kWarps][kOwn * kWarp];
#pragma unroll
  for (int r = 0; r < kTogether; ++r) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) parts[r][warp][i * kWarp + lane] = y[r][i];
    if (lane == 0) tops[r][warp] = top[r], sums[r][warp] = sum[r];
  }
  __syncthreads();
  for (int at = static_cast<int>(threadIdx.x); at < rows * d; at += kThreads) {
    const int r = at / d, e = at % d;
    float most = tops[r][0], total = 0, of_all = 0;
    for (int w = 1; w < kWarps; ++w) most = fmaxf(most, tops[r][w]);
    for (int w = 0; w < kWarps; ++w) {
      const float factor = expf(tops[r][w] - most);
      total += sums[r][w] * factor;
      of_all += parts[r][w][e] * factor;
    }
    g.y[((row + r) * g.shape.heads + head) * d + e] = rounded<T>(of_all / total);
  }
}

}  // namespace

template <Device D, class T>
void cached_attention(const CachedAttentionArgs<T>& g, Arena&, Stream& stream) {
  const Span span(stream.profile(), "cached_attention");
  const auto rows = static_cast<unsigned>(g.shape.rows()), heads = static_cast<unsigned>(g.shape.heads);
  launch(cache_rows_kernel<T>, rows, kThreads, 0, stream, g);
  const auto start = [&](auto kernel) { launch(kernel, dim3(rows, heads), kThreads, 0, stream, g); };
  const int64_t d = g.shape.head_dim;
  static_assert(kAttentionMaxHeadDimOnCuda == 8 * kWarp);
  if (d <= kWarp) {
    start(cached_attention_kernel<T, 1>);
  } else if (d <= 2 * kWarp) {
    start(cached_attention_kernel<T, 2>);
  } else if (d <= 4 * kWarp) {
    start(cached_attention_kernel<T, 4>);
  } else {
    start(cached_attention_kernel<T, 8>);
  }
}

template void cached_attention<Device::cuda>(const CachedAttentionArgs<float>&, Arena&, Stream&);
template void cached_attention<Device::cuda>(const CachedAttentionArgs<bf16>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
