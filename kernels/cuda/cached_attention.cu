// First a block puts a new row's keys and values into the cache. Then a block takes a row and one of its
// query heads: warp w meets the positions that the row sees in fours, from the 4 w'th on, with a running
// maximum and sum, and the warps' parts are added up in order. So what is added when depends on the number of
// positions alone. The lanes of a warp read a key or value side by side. Floor: memory, one read of the keys
// and values that a row sees, 2 FLOPs a byte of bf16. The query heads of a key head read them from the L2
// cache after the first; and rows of one sequence, which a long prompt has many of, do so too: reading
// prompts is no faster here than writing as many tokens.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/attention.h>
#include <ziggurat/kernels/cached_attention.h>

namespace ziggurat::kernels {

namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarp;
constexpr int kAtOnce = 4;  // positions of a warp

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
__device__ __forceinline__ int64_t place_of(const CachedAttentionArgs<T>& g, int32_t sequence, int64_t position,
                                            int64_t key_head) {
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

// kOwn: elements of a head that a lane has.
template <class T, int kOwn>
__global__ void __launch_bounds__(kThreads) cached_attention_kernel(CachedAttentionArgs<T> g) {
  const int64_t row = blockIdx.x, head = blockIdx.y, key_head = head / g.shape.group();
  const int d = static_cast<int>(g.shape.head_dim), lane = static_cast<int>(threadIdx.x) % kWarp,
            warp = static_cast<int>(threadIdx.x) / kWarp;
  const int32_t sequence = g.sequence[row];
  const int64_t end = int64_t{g.position[row]} + 1, first = g.window == 0 || end < g.window ? 0 : end - g.window;

  float q[kOwn], y[kOwn] = {}, top = Maximum::kNeutral<float>, sum = 0;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int e = i * kWarp + lane;
    const T* const of_head = g.qkv + row * g.shape.width() + head * d;
    q[i] = e < d ? static_cast<float>(g.scale) * rotated(g, row, of_head, e) : 0.0f;
  }
#pragma unroll 1
  for (int64_t begin = first + warp * kAtOnce; begin < end; begin += kWarps * kAtOnce) {
    float score[kAtOnce], values[kAtOnce][kOwn];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      score[u] = 0;
      const bool exists = begin + u < end;
      const int64_t place = exists ? place_of(g, sequence, begin + u, key_head) : 0;
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const int e = i * kWarp + lane;
        const bool mine = exists && e < d;
        score[u] += mine ? q[i] * to_float(g.keys[place + e]) : 0.0f;
        values[u][i] = mine ? to_float(g.values[place + e]) : 0.0f;
      }
      score[u] = exists ? warp_sum(score[u]) : Maximum::kNeutral<float>;
    }
    float next = top;
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) next = fmaxf(next, score[u]);
    const float shrink = expf(top - next);
    top = next;
    sum *= shrink;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) y[i] *= shrink;
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const float p = expf(score[u] - next);
      sum += p;
#pragma unroll
      for (int i = 0; i < kOwn; ++i) y[i] += p * values[u][i];
    }
  }

  __shared__ float tops[kWarps], sums[kWarps], parts[kWarps][kOwn * kWarp];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) parts[warp][i * kWarp + lane] = y[i];
  if (lane == 0) tops[warp] = top, sums[warp] = sum;
  __syncthreads();
  float most = tops[0];  // warp 0 has met a position
  for (int w = 1; w < kWarps; ++w) most = fmaxf(most, tops[w]);
  for (int e = static_cast<int>(threadIdx.x); e < d; e += kThreads) {
    float total = 0, of_all = 0;
    for (int w = 0; w < kWarps; ++w) {
      const float factor = expf(tops[w] - most);
      total += sums[w] * factor;
      of_all += parts[w][e] * factor;
    }
    g.y[(row * g.shape.heads + head) * d + e] = rounded<T>(of_all / total);
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
