// With p = e^(score - log_sum_exp) once more: by blocks of queries for dq, and by blocks of keys, over the
// query heads of their group in order, for dk and dv. Tiles pass by as in the forward pass, of queries where
// rows are keys. bf16 rounds p and ds as they enter the next product. A library that suits a call is asked
// first (lib/attention_plan.h).
//
// Floor: products'. 7 B H T^2 d FLOPs, since scores and dp are computed in both passes, and 8 above head_dim
// 128, where dk and dv are two. (5 in one pass would need sums by atomics, whose order and bits differ from
// run to run.) On top comes what the forward pass has; of Philox a block for every p in the pass for dk and
// dv. Bytes: qkv, y and dy read and dqkv written; what passes by is read by every block, from the L2 cache:
// 96 and 128 FLOPs a byte of bf16 in the two passes.
#include <type_traits>

#include <kernels/cuda/device/attention_tiles.h>
#include <kernels/cuda/device/team.h>
#include <kernels/cuda/lib/attention_plan.h>

namespace ziggurat::kernels {

namespace {

template <class T, int kCols>
using BackwardTiles = Tiles<T, kCols, kFewRows<T, kCols>, 2>;

// delta [B, H, T] = dy . y, by a few lanes a row.
using RowTeam = LaneTeam<128, 8>;
template <class T, int N>
__global__ void __launch_bounds__(128) attention_delta_kernel(AttentionGradArgs<T> g, float* delta) {
  const RowTeam team;
  const AttentionShape& s = g.shape;
  const int64_t at = int64_t{blockIdx.x} * RowTeam::kOfBlock + team.number();  // [B, T, H]
  if (at >= s.rows() * s.heads) return;
  float sum = 0;
  for (int64_t j = team.rank() * N; j < s.head_dim; j += RowTeam::kSize * N) {
    const Values<T, N> y = load<N>(g.y + at * s.head_dim + j), dy = load<N>(g.dy + at * s.head_dim + j);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += dy.v[i] * y.v[i];
  }
  sum = team.sum(sum);
  const int64_t row = at / s.heads, head = at % s.heads;
  if (team.rank() == 0) delta[(row / s.length * s.heads + head) * s.length + row % s.length] = sum;
}

template <class T, int kCols>
__global__ void __launch_bounds__(BackwardTiles<T, kCols>::kThreads, kBlocks)
    attention_query_grad_kernel(AttentionGradArgs<T> g, const float* delta, bool fits) {
  using Tile = BackwardTiles<T, kCols>;
  constexpr int kThreads = Tile::kThreads, N = Tile::kStream / 8;
  const AttentionShape& s = g.shape;
  const Part part = part_of_block<Tile::kRows, true>(s, s.heads);
  const int d = static_cast<int>(s.head_dim), end = part.end;
  const int64_t y_width = s.heads * d, first_row = part.sequence * s.length;
  const Sight sight(g, first_row);
  const T* const rows = g.qkv + first_row * s.width();
  const T* const dy = g.dy + first_row * y_width + part.head * d;
  const T* const k = rows + s.k_column() + part.head / s.group() * d;
  const T* const v = rows + s.v_column() + part.head / s.group() * d;
  const int first_of_all = sight.begin_of_keys<kThreads>(part.begin, end),
            end_of_all = sight.end_of_keys<kThreads>(part.begin, end);
  const auto begin_copy = [&](int tile, int buffer) {
    const int key = first_of_all + tile * Tile::kStream;
    if (tile == 0) {
      copy_tile<kThreads, Tile::kRows, kCols>(rows + part.begin * s.width() + part.head * d, s.width(),
                                              end - part.begin, d, fits, Tile::resident(0));
      copy_tile<kThreads, Tile::kRows, kCols>(dy + part.begin * y_width, y_width, end - part.begin, d, fits,
                                              Tile::resident(1));
    }
    copy_tile<kThreads, Tile::kStream, kCols>(k + key * s.width(), s.width(), end_of_all - key, d, fits,
                                              Tile::streamed(buffer, 0));
    copy_tile<kThreads, Tile::kStream, kCols>(v + key * s.width(), s.width(), end_of_all - key, d, fits,
                                              Tile::streamed(buffer, 1));
  };

  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = lane_of_warp();
  const int row = part.begin + 16 * warp + lane / 4;  // and row + 8
  const int64_t head_row = (part.sequence * s.heads + part.head) * s.length,
                drop_row = g.dropout.place(s, part.sequence, part.head) * s.length;
  int first[2], last[2];
  float lse[2], row_delta[2];
  for (int r = 0; r < 2; ++r) {
    const int i = row + 8 * r;
    first[r] = i >= end ? 0 : sight.first(i);
    last[r] = i >= end ? i : sight.last(i);
    lse[r] = i >= end ? 0.0f : g.log_sum_exp[head_row + i] * kLog2E;
    row_delta[r] = i >= end ? 0.0f : delta[head_row + i];
  }
  const int last_of_warp = __reduce_max_sync(kWholeWarp, max(last[0], last[1]));
  const Keep keep(g.dropout);
  const auto length = static_cast<uint64_t>(s.length),
             element = static_cast<uint64_t>(drop_row + row) * length + static_cast<uint64_t>(lane % 4 * 2);
  const float scale = static_cast<float>(g.scale) * kLog2E;
  float dq[kCols / 8][4] = {};

  const int tiles = (end_of_all - first_of_all + Tile::kStream - 1) / Tile::kStream;
  for_each_tile(tiles, begin_copy, [&](int tile, int buffer) {
    const int key = first_of_all + tile * Tile::kStream;
    if (key > last_of_warp) return;
    float p[N][4] = {}, ds[N][4] = {};  // ds = p (keep dp - delta)
    const int mine = 16 * warp * Tile::kStride;
    add_product_of_rows<kCols>(p, Tile::resident(0) + mine, Tile::streamed(buffer, 0));
    add_product_of_rows<kCols>(ds, Tile::resident(1) + mine, Tile::streamed(buffer, 1));
    scale_and_hide(p, scale, key, first, last);
    const uint32_t kept = keep.bits<N>(element + static_cast<uint64_t>(key), 8 * length);
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        ds[n][i] = exp2f(p[n][i] - lse[i / 2]) * (keep.factor(kept, n, i) * ds[n][i] - row_delta[i / 2]);
      }
    }
    add_product<kCols>(dq, ds, Tile::streamed(buffer, 0));
  });
  const auto factor = static_cast<float>(g.scale);
  write_rows(dq, {factor, factor}, row, end, g.dqkv + first_row * s.width() + part.head * d, s.width(), d,
             fits, g.accumulate);
}

// dk or dv, or both. Rows are keys here, and queries pass by.
template <class T, int kCols, bool kKey, bool kValue>
__global__ void __launch_bounds__(BackwardTiles<T, kCols>::kThreads, kBlocks)
    attention_key_grad_kernel(AttentionGradArgs<T> g, const float* delta, bool fits) {
  using Tile = BackwardTiles<T, kCols>;
  constexpr int kThreads = Tile::kThreads, N = Tile::kStream / 8;
  struct Query {
    float lse, delta;
  };
  struct Seen {  // by a query
    int first, last;
  };
  __shared__ Query queries[2][Tile::kStream];
  __shared__ Seen seen_by[2][Tile::kStream];
  const AttentionShape& s = g.shape;
  const Part part = part_of_block<Tile::kRows, false>(s, s.kv_heads);
  const int d = static_cast<int>(s.head_dim);
  const int64_t y_width = s.heads * d, first_row = part.sequence * s.length;
  const T* const rows = g.qkv + first_row * s.width();
  const int begin = Sight(g, first_row).template begin_of_rows<kThreads>(part.begin),
            end = Sight(g, first_row).template end_of_rows<kThreads>(part.begin, part.end);
  const int tiles = (end - begin + Tile::kStream - 1) / Tile::kStream;  // of one head
  const int group = static_cast<int>(s.group()), first_head = part.head * group;

  const auto begin_copy = [&](int tile, int buffer) {
    if (tile == 0) {
      const T* const k = rows + part.begin * s.width() + s.k_column() + part.head * d;
      const T* const v = rows + part.begin * s.width() + s.v_column() + part.head * d;
      copy_tile<kThreads, Tile::kRows, kCols>(k, s.width(), part.end - part.begin, d, fits,
                                              Tile::resident(0));
      copy_tile<kThreads, Tile::kRows, kCols>(v, s.width(), part.end - part.begin, d, fits,
                                              Tile::resident(1));
    }
    const int head = first_head + tile / tiles;
    const int query = begin + tile % tiles * Tile::kStream;
    copy_tile<kThreads, Tile::kStream, kCols>(rows + query * s.width() + head * d, s.width(), end - query, d,
                                              fits, Tile::streamed(buffer, 0));
    copy_tile<kThreads, Tile::kStream, kCols>(g.dy + (first_row + query) * y_width + head * d, y_width,
                                              end - query, d, fits, Tile::streamed(buffer, 1));
    const int i = static_cast<int>(threadIdx.x);
    if (i < Tile::kStream) {
      const Sight sight(g, part.sequence * s.length);
      const int64_t at = (part.sequence * s.heads + head) * s.length + query + i;
      const bool exists = query + i < end;
      queries[buffer][i] = exists ? Query{g.log_sum_exp[at] * kLog2E, delta[at]} : Query{0, 0};
      seen_by[buffer][i] = exists ? Seen{sight.first(query + i), sight.last(query + i)} : Seen{0, -1};
    }
  };

  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = lane_of_warp();
  const int key = part.begin + 16 * warp + lane / 4;  // and key + 8
  const Keep keep(g.dropout);
  const float scale = static_cast<float>(g.scale) * kLog2E;
  float dk[kCols / 8][4] = {}, dv[kCols / 8][4] = {};

  for_each_tile(group * tiles, begin_copy, [&](int tile, int buffer) {
    const int query = begin + tile % tiles * Tile::kStream;
    const bool before = query + Tile::kStream <= part.begin + 16 * warp;
    if (before && g.last_key == nullptr) return;  // of the warp's keys none is seen
    float p[N][4] = {}, ds[N][4] = {};            // transposed: ds = p (keep dp - delta)
    const int mine = 16 * warp * Tile::kStride;
    add_product_of_rows<kCols>(p, Tile::resident(0) + mine, Tile::streamed(buffer, 0));
    if constexpr (kKey) {
      add_product_of_rows<kCols>(ds, Tile::resident(1) + mine, Tile::streamed(buffer, 1));
    }
    const int64_t drop_row = g.dropout.place(s, part.sequence, first_head + tile / tiles) * s.length;
    const auto element = static_cast<uint64_t>((drop_row + query + lane % 4 * 2) * s.length + key);
    const uint32_t bits = keep.bits<N>(element, 8, static_cast<uint64_t>(s.length));
#pragma unroll
    for (int n = 0; n < N; ++n) {  // apart from what follows, which then needs fewer registers
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = 8 * n + lane % 4 * 2 + i % 2, row = key + i / 2 * 8;
        const Seen& by = seen_by[buffer][column];
        p[n][i] = row <= by.last && row >= by.first ? p[n][i] * scale : Maximum::kNeutral<float>;
      }
    }
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const Query& q = queries[buffer][8 * n + lane % 4 * 2 + i % 2];
        const float e = exp2f(p[n][i] - q.lse);
        const float kept = keep.factor(bits, n, i);
        p[n][i] = e * kept;
        ds[n][i] = e * (kept * ds[n][i] - q.delta);
      }
    }
    if constexpr (kValue) add_product<kCols>(dv, p, Tile::streamed(buffer, 1));
    if constexpr (kKey) add_product<kCols>(dk, ds, Tile::streamed(buffer, 0));
  });

  T* const drows = g.dqkv + first_row * s.width();
  const auto factor = static_cast<float>(g.scale);
  if constexpr (kKey) {
    write_rows(dk, {factor, factor}, key, part.end, drows + s.k_column() + part.head * d, s.width(), d, fits,
               g.accumulate);
  }
  if constexpr (kValue) {
    write_rows(dv, {1, 1}, key, part.end, drows + s.v_column() + part.head * d, s.width(), d, fits,
               g.accumulate);
  }
}

}  // namespace

template <Device D, class T>
void attention_backward(const AttentionGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "attention_backward");
  if constexpr (std::is_same_v<T, bf16>) {
    if (attend_by_library(g, workspace, stream)) return;
  }
  const AttentionShape& s = g.shape;
  const ArenaScope scope(workspace);
  auto* const delta = workspace.take_on_device<float>(s.rows() * s.heads);
  const bool fits = fit_lanes(s.head_dim, g.qkv, g.y, g.dy, g.dqkv);
  launch(fits ? attention_delta_kernel<T, kLanes<T>> : attention_delta_kernel<T, 1>,
         blocks_for(s.rows() * s.heads, RowTeam::kOfBlock), 128, 0, stream, g, delta);
  visit_columns(s.head_dim, [&]<int kCols>() {
    using Tile = BackwardTiles<T, kCols>;
    const auto start = [&](auto kernel, int64_t heads) {
      launch(kernel, parts<Tile::kRows>(s, heads), Tile::kThreads, Tile::kBytes, stream, g, delta, fits);
    };
    start(attention_query_grad_kernel<T, kCols>, s.heads);
    if constexpr (kCols <= 128) {
      start(attention_key_grad_kernel<T, kCols, true, true>, s.kv_heads);
    } else {  // both together have more sums than a thread has registers
      start(attention_key_grad_kernel<T, kCols, false, true>, s.kv_heads);
      start(attention_key_grad_kernel<T, kCols, true, false>, s.kv_heads);
    }
  });
}

template void attention_backward<Device::cuda>(const AttentionGradArgs<float>&, Arena&, Stream&);
template void attention_backward<Device::cuda>(const AttentionGradArgs<bf16>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
