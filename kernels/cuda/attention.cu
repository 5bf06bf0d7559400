// Each warp meets tile by tile the keys that one of its rows sees, with a running maximum and sum a row
// (Milakov and Gimelshein 2018; Dao 2023, FlashAttention-2, algorithm 1). Tiles are copied while the ones
// before are worked on; those that no row of a block sees, as before a window or another document, are not
// touched. Sums and probabilities are f32; bf16 rounds p as it enters the next product, which tensor cores
// do, f32 uses FMAs. A library that suits a call is asked first (lib/attention_plan.h).
//
// Floor: products'. 2 B H T^2 d FLOPs. On top come the tiles' halves above the diagonal, about 32 keys a row;
// what pads head_dim to 64, 128 or 256; and with dropout a block of Philox, 100 integer operations, for every
// two p. Bytes: qkv, y, log_sum_exp once; what passes by is read by every block, from the L2 cache: 64 FLOPs
// a byte of bf16.
#include <type_traits>

#include <kernels/cuda/device/attention_tiles.h>
#include <kernels/cuda/lib/attention_plan.h>

namespace ziggurat::kernels {

namespace {

template <class T, int kCols>
using ForwardTiles = Tiles<T, kCols,
                           sizeof(T) == 4 ? kFewRows<T, kCols>
                           : kCols <= 128 ? 64
                                          : 32,
                           1>;

template <class T, int kCols>
__global__ void __launch_bounds__(ForwardTiles<T, kCols>::kThreads, kBlocks)
    attention_forward_kernel(AttentionArgs<T> g, bool fits) {
  using Tile = ForwardTiles<T, kCols>;
  constexpr int kThreads = Tile::kThreads, N = Tile::kStream / 8;
  const AttentionShape& s = g.shape;
  const Part part = part_of_block<Tile::kRows, true>(s, s.heads);
  const int d = static_cast<int>(s.head_dim), end = part.end;
  const Sight sight(g, part.sequence * s.length);
  const T* const rows = g.qkv + part.sequence * s.length * s.width();
  const T* const k = rows + s.k_column() + part.head / s.group() * d;
  const T* const v = rows + s.v_column() + part.head / s.group() * d;
  const int first_of_all = sight.begin_of_keys<kThreads>(part.begin, end),
            end_of_all = sight.end_of_keys<kThreads>(part.begin, end);
  const auto begin_copy = [&](int tile, int buffer) {
    const int key = first_of_all + tile * Tile::kStream;
    if (tile == 0) {
      copy_tile<kThreads, Tile::kRows, kCols>(rows + part.begin * s.width() + part.head * d, s.width(),
                                              end - part.begin, d, fits, Tile::resident(0));
    }
    copy_tile<kThreads, Tile::kStream, kCols>(k + key * s.width(), s.width(), end_of_all - key, d, fits,
                                              Tile::streamed(buffer, 0));
    copy_tile<kThreads, Tile::kStream, kCols>(v + key * s.width(), s.width(), end_of_all - key, d, fits,
                                              Tile::streamed(buffer, 1));
  };

  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = lane_of_warp();
  const int row = part.begin + 16 * warp + lane / 4;  // and row + 8
  const int64_t drop_row = g.dropout.place(s, part.sequence, part.head) * s.length;
  int first[2], last[2];
  for (int r = 0; r < 2; ++r) {
    const int i = row + 8 * r;
    first[r] = i >= end ? 0 : sight.first(i);
    last[r] = i >= end ? i : sight.last(i);
  }
  const int last_of_warp = __reduce_max_sync(kWholeWarp, max(last[0], last[1]));
  const Keep keep(g.dropout);
  const auto length = static_cast<uint64_t>(s.length),
             element = static_cast<uint64_t>(drop_row + row) * length + static_cast<uint64_t>(lane % 4 * 2);
  const float scale = static_cast<float>(g.scale) * kLog2E;
  float y[kCols / 8][4] = {}, max[2] = {Maximum::kNeutral<float>, Maximum::kNeutral<float>}, sum[2] = {};

  const int tiles = (end_of_all - first_of_all + Tile::kStream - 1) / Tile::kStream;
  for_each_tile(tiles, begin_copy, [&](int tile, int buffer) {
    const int key = first_of_all + tile * Tile::kStream;
    if (key > last_of_warp) return;
    float p[N][4] = {};
    add_product_of_rows<kCols>(p, Tile::resident(0) + 16 * warp * Tile::kStride, Tile::streamed(buffer, 0));
    scale_and_hide(p, scale, key, first, last);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = max[r];
#pragma unroll
      for (int n = 0; n < N; ++n) top = fmaxf(top, fmaxf(p[n][2 * r], p[n][2 * r + 1]));
      top = quad_max(top);
      const float reference = top == Maximum::kNeutral<float> ? 0.0f : top;  // a row that has seen none yet
      const float shrink = exp2f(max[r] - reference);
      max[r] = top;
      sum[r] *= shrink;
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          p[n][i] = exp2f(p[n][i] - reference);
          sum[r] += p[n][i];
        }
      }
#pragma unroll
      for (int n = 0; n < kCols / 8; ++n) {
        y[n][2 * r] *= shrink;
        y[n][2 * r + 1] *= shrink;
      }
    }
    const uint32_t kept = keep.bits<N>(element + static_cast<uint64_t>(key), 8 * length);
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) p[n][i] *= keep.factor(kept, n, i);
    }
    add_product<kCols>(y, p, Tile::streamed(buffer, 1));
  });

  const int64_t head_row = (part.sequence * s.heads + part.head) * s.length;
  float normalise[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] = quad_sum(sum[r]);
    normalise[r] = 1 / sum[r];
    if (lane % 4 == 0 && row + 8 * r < end) {
      g.log_sum_exp[head_row + row + 8 * r] = (max[r] + log2f(sum[r])) * kLn2;
    }
  }
  const int64_t y_width = s.heads * d;
  write_rows(y, normalise, row, end, g.y + part.sequence * s.length * y_width + part.head * d, y_width, d,
             fits, false);
}

}  // namespace

template <Device D, class T>
void attention_forward(const AttentionArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "attention_forward");
  if constexpr (std::is_same_v<T, bf16>) {
    if (attend_by_library(g, workspace, stream)) return;
  }
  visit_columns(g.shape.head_dim, [&]<int kCols>() {
    using Tile = ForwardTiles<T, kCols>;
    launch(attention_forward_kernel<T, kCols>, parts<Tile::kRows>(g.shape, g.shape.heads), Tile::kThreads,
           Tile::kBytes, stream, g, fit_lanes(g.shape.head_dim, g.qkv, g.y));
  });
}

template void attention_forward<Device::cuda>(const AttentionArgs<float>&, Arena&, Stream&);
template void attention_forward<Device::cuda>(const AttentionArgs<bf16>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
