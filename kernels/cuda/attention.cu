// Forward: a block has 64 rows of queries, each warp 16 of them in registers, and meets tile by tile the keys
// that one of them sees, with a running maximum and sum a row (Milakov and Gimelshein 2018; Dao 2023,
// FlashAttention-2, algorithm 1). Backward, with p = e^(score - log_sum_exp) once more: by blocks of queries
// for dq, and by blocks of keys, over the query heads of their group in order, for dk and dv. Tiles are
// copied while the ones before are worked on; those that no row of a block sees, as before a window or
// another document, are not touched. Sums and probabilities are f32; bf16 rounds p and ds as they enter the
// next product, which tensor cores do, f32 uses FMAs. A library that suits a call is asked first
// (lib/attention_plan.h).
//
// Floor: products'. 2 B H T^2 d FLOPs forward; 7 B H T^2 d backward, since scores and dp are computed in both
// passes, and 8 above head_dim 128, where dk and dv are two. (5 in one pass would need sums by atomics, whose
// order and bits differ from run to run.) On top come the tiles' halves above the diagonal, about 32 keys a
// row; what pads head_dim to 64, 128 or 256; and with dropout a block of Philox, 100 integer operations, for
// every two p, or in the pass for dk and dv for every one. Bytes: qkv, y, log_sum_exp once forward; backward
// qkv, y and dy read and dqkv written; what passes by is read by every block, from the L2 cache: 64 FLOPs
// a byte of bf16 forward, 96 and 128 in backward's two passes.
#include <type_traits>

#include <kernels/cuda/device/dynamic_shared.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/team.h>
#include <kernels/cuda/device/warp_product.h>
#include <kernels/cuda/lib/attention_plan.h>

#include <ziggurat/kernels/attention.h>

namespace ziggurat::kernels {

namespace {

// Of a processor, at least: a thread may then have 255 registers, where ptxas would save some by spilling.
constexpr int kBlocks = 2;
constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;

// What a block keeps: kRows rows of one or two matrices, and two buffers for tiles of kStream rows of two
// matrices that pass by, of kCols columns, in at most 163 KiB of shared memory, which an A100 has.
template <class T_, int kCols_, int kStream_, int kResident>
struct Tiles {
  using T = T_;
  static constexpr int kCols = kCols_, kStride = kTileStride<T, kCols>;
  static constexpr int kWarps = kCols * sizeof(T) > 512 ? 2 : 4, kThreads = kWarps * kWarp;
  static constexpr int kRows = 16 * kWarps, kStream = kStream_;
  static constexpr size_t kBytes = size_t{kResident * kRows + 4 * kStream} * kStride * sizeof(T);
  static_assert(kBytes <= size_t{163 * 1024});

  __device__ static T* resident(int i) { return dynamic_shared<T>() + i * kRows * kStride; }
  __device__ static T* streamed(int buffer, int i) {
    return dynamic_shared<T>() + (kResident * kRows + (2 * buffer + i) * kStream) * kStride;
  }
};
// As many streamed rows as leave a thread registers for its sums.
template <class T, int kCols>
constexpr int kFewRows = kCols * sizeof(T) >= 512 ? 16 : 32;
template <class T, int kCols>
using ForwardTiles = Tiles<T, kCols,
                           sizeof(T) == 4 ? kFewRows<T, kCols>
                           : kCols <= 128 ? 64
                                          : 32,
                           1>;
template <class T, int kCols>
using BackwardTiles = Tiles<T, kCols, kFewRows<T, kCols>, 2>;

// A block's part: `rows` rows from `begin` on of one head of a sequence. The blocks that have most to do come
// first.
struct Part {
  int sequence, head, begin, end;
};
template <int kRows, bool last_first>
__device__ __forceinline__ Part part_of_block(const AttentionShape& s, int64_t heads) {
  const auto all = static_cast<unsigned>(s.batch * heads), rest = blockIdx.x % all;
  const unsigned tile = last_first ? gridDim.x / all - 1 - blockIdx.x / all : blockIdx.x / all;
  const int begin = static_cast<int>(tile) * kRows, length = static_cast<int>(s.length);
  const auto of_sequence = static_cast<unsigned>(heads);
  return {static_cast<int>(rest / of_sequence), static_cast<int>(rest % of_sequence), begin,
          min(begin + kRows, length)};
}
template <int kRows>
unsigned parts(const AttentionShape& s, int64_t heads) {
  return blocks_for(s.length, kRows) * static_cast<unsigned>(s.batch * heads);
}

// Tiles 0 to count - 1: begin_copy(tile, buffer) of the next one, then work(tile, buffer).
template <class Copy, class Work>
__device__ __forceinline__ void for_each_tile(int count, const Copy& begin_copy, const Work& work) {
#pragma unroll 1
  for (int tile = -1; tile < count; ++tile) {
    __pipeline_wait_prior(0);
    __syncthreads();  // this tile has come, and all have left the other buffer
    if (tile + 1 < count) {
      begin_copy(tile + 1, (tile + 1) % 2);
      __pipeline_commit();
    }
    if (tile >= 0) work(tile, tile % 2);
  }
}

struct Least {
  template <class V>
  static constexpr V kNeutral = 0x7fffffff;
  __device__ int operator()(int a, int b) const { return a < b ? a : b; }
};

// Which keys the rows of one sequence see.
struct Sight {
  template <class Args>
  __device__ Sight(const Args& g, int64_t first_row)
      : first_key(g.first_key == nullptr ? nullptr : g.first_key + first_row),
        last_key(g.last_key == nullptr ? nullptr : g.last_key + first_row),
        length(static_cast<int>(g.shape.length)),
        window(g.window > 0 && g.window < length ? static_cast<int>(g.window) : length) {}

  // Row i sees the keys first(i) to last(i).
  __device__ __forceinline__ int first(int i) const {
    const int within = max(0, i - window + 1);
    return first_key == nullptr ? within : max(within, first_key[i]);
  }
  __device__ __forceinline__ int last(int i) const { return last_key == nullptr ? i : last_key[i]; }

  // The first key that one of the rows [begin, end) sees, and what lies behind the last.
  template <int kThreads>
  __device__ __forceinline__ int begin_of_keys(int begin, int end) const {
    if (first_key == nullptr) return first(begin);
    int least = begin;
    for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kThreads) least = min(least, first(i));
    return block_reduce<Least, kThreads>(least);
  }
  template <int kThreads>
  __device__ __forceinline__ int end_of_keys(int begin, int end) const {
    if (last_key == nullptr) return end;
    int most = begin;
    for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kThreads) most = max(most, last(i));
    return 1 - block_reduce<Least, kThreads>(-most);
  }

  // The first row that sees one of the keys [begin, end), and what lies behind the last.
  template <int kThreads>
  __device__ __forceinline__ int begin_of_rows(int begin) const {
    if (last_key == nullptr) return begin;
    int least = begin;
    for (int i = static_cast<int>(threadIdx.x); i < begin; i += kThreads) {
      if (last(i) >= begin) least = min(least, i);
    }
    return block_reduce<Least, kThreads>(least);
  }
  template <int kThreads>
  __device__ __forceinline__ int end_of_rows(int begin, int end) const {
    const int within = min(length, end - 1 + window);
    if (first_key == nullptr) return within;
    int most = begin;
    for (int i = begin + static_cast<int>(threadIdx.x); i < within; i += kThreads) {
      if (first_key[i] < end) most = i;
    }
    return 1 - block_reduce<Least, kThreads>(-most);
  }

  const int32_t *first_key, *last_key;  // of the sequence's rows, or null
  int length, window;
};

// A row's four lanes.
__device__ __forceinline__ float quad_sum(float value) {
  value += __shfl_xor_sync(kWholeWarp, value, 1);
  return value + __shfl_xor_sync(kWholeWarp, value, 2);
}
__device__ __forceinline__ float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(kWholeWarp, value, 1));
  return fmaxf(value, __shfl_xor_sync(kWholeWarp, value, 2));
}

// Which of a lane's probabilities [N][4] are kept, a bit for each, and times what. The blocks of Philox are
// drawn in a loop that is not unrolled: its registers are then no more than those of one block.
class Keep {
 public:
  __device__ explicit Keep(const AttentionDropout& dropout)
      : random_(dropout.random),
        rate_(static_cast<float>(dropout.probability)),
        kept_(static_cast<float>(1 / (1 - dropout.probability))) {}
  // Where row r of the lane, column 8 n + i, is element first + r * row + 8 n + i.
  template <int N>
  __device__ uint32_t bits(uint64_t first, uint64_t row) const {
    uint32_t all = ~0u;
    if (!(rate_ > 0)) return all;
    const Philox random = random_.now();
#pragma unroll 1
    for (int at = 0; at < 4 * N; at += 2) {
      const uint64_t element = first + at / 2 % 2 * row + static_cast<uint64_t>(at / 4 * 8);
      Philox::Block block = random.block(element / 4);
      drop_some(block, element, at, all);
      if (element % 4 == 3) block = random.block(element / 4 + 1);
      drop_some(block, element + 1, at + 1, all);
    }
    return all;
  }
  // Where it is element first + r * row + (8 n + i) * column.
  template <int N>
  __device__ uint32_t bits(uint64_t first, uint64_t row, uint64_t column) const {
    uint32_t all = ~0u;
    if (!(rate_ > 0)) return all;
    const Philox random = random_.now();
#pragma unroll 1
    for (int at = 0; at < 4 * N; ++at) {
      const uint64_t element = first + at / 2 % 2 * row + static_cast<uint64_t>(at / 4 * 8 + at % 2) * column;
      drop_some(random.block(element / 4), element, at, all);
    }
    return all;
  }
  __device__ float factor(uint32_t bits, int n, int i) const {
    return bits >> (4 * n + i) & 1u ? kept_ : 0.0f;
  }

 private:
  __device__ void drop_some(const Philox::Block& block, uint64_t element, int at, uint32_t& all) const {
    const bool odd = element % 2 != 0;  // chosen, not indexed: an index would need memory
    const uint32_t random = element % 4 < 2 ? (odd ? block[1] : block[0]) : (odd ? block[3] : block[2]);
    if (Philox::to_uniform(random) < rate_) all &= ~(1u << at);
  }
  LatePhilox random_;
  float rate_, kept_;
};

__device__ __forceinline__ float2 load_pair(const float* from) {
  return *reinterpret_cast<const float2*>(from);
}
__device__ __forceinline__ float2 load_pair(const bf16* from) {
  const uint32_t pair = *reinterpret_cast<const uint32_t*>(from);
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}
__device__ __forceinline__ void store_pair(float* to, float2 v) { *reinterpret_cast<float2*>(to) = v; }
__device__ __forceinline__ void store_pair(bf16* to, float2 v) {
  *reinterpret_cast<uint32_t*>(to) = pack_bf16(v.x, v.y);
}

// Rows of a warp: c [16, 8 N] times a factor for each of a lane's two rows goes to rows `stride` apart, of
// which the lane's first is `row`; those from `end` on do not exist.
template <int N, class T>
__device__ __forceinline__ void write_rows(const float (&c)[N][4], const float (&factor)[2], int row, int end,
                                           T* to, int64_t stride, int cols, bool fits, bool accumulate) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row + 8 * r >= end) continue;
    T* const at = to + (row + 8 * r) * stride;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const int col = 8 * n + lane_of_warp() % 4 * 2;
      if (col >= cols) continue;
      float2 v = make_float2(c[n][2 * r] * factor[r], c[n][2 * r + 1] * factor[r]);
      if (fits) {
        if (accumulate) {
          const float2 earlier = load_pair(at + col);
          v = make_float2(earlier.x + v.x, earlier.y + v.y);
        }
        store_pair(at + col, v);
      } else {
        write(at + col, accumulate, Values<T, 1>{{v.x}});
        if (col + 1 < cols) write(at + col + 1, accumulate, Values<T, 1>{{v.y}});
      }
    }
  }
}

// Scores of a warp's 16 rows with the keys from `key` on, scaled, to base 2, and hidden ones -infinity; each
// lane's two rows see the keys first[r] to last[r].
template <int N>
__device__ __forceinline__ void scale_and_hide(float (&s)[N][4], float scale, int key, const int (&first)[2],
                                               const int (&last)[2]) {
  const bool all_seen = key + 8 * N - 1 <= min(last[0], last[1]) && key >= first[0] && key >= first[1];
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = i / 2, at = key + 8 * n + lane_of_warp() % 4 * 2 + i % 2;
      const bool seen = all_seen || (at <= last[r] && at >= first[r]);
      s[n][i] = seen ? s[n][i] * scale : Maximum::kNeutral<float>;
    }
  }
}

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

// f.template operator()<columns>(): the next size that there is for a head_dim of up to 256.
template <class F>
void visit_columns(int64_t head_dim, const F& f) {
  static_assert(kAttentionMaxHeadDimOnCuda == 256);
  if (head_dim <= 64) return f.template operator()<64>();
  if (head_dim <= 128) return f.template operator()<128>();
  f.template operator()<256>();
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

template void attention_forward<Device::cuda>(const AttentionArgs<float>&, Arena&, Stream&);
template void attention_forward<Device::cuda>(const AttentionArgs<bf16>&, Arena&, Stream&);
template void attention_backward<Device::cuda>(const AttentionGradArgs<float>&, Arena&, Stream&);
template void attention_backward<Device::cuda>(const AttentionGradArgs<bf16>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
