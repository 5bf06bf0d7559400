// Attention whose keys, or queries, pass by in tiles: what both passes have in common. A block has rows of
// one head of a sequence, each warp 16 of them in registers.
#pragma once

#include <kernels/cuda/device/dynamic_shared.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/warp_product.h>

#include <ziggurat/kernels/attention.h>

namespace ziggurat::kernels {

// Of a processor, at least: a thread may then have 255 registers, where ptxas would save some by spilling.
inline constexpr int kBlocks = 2;
inline constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;

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

// f.template operator()<columns>(): the next size that there is for a head_dim of up to 256.
template <class F>
void visit_columns(int64_t head_dim, const F& f) {
  static_assert(kAttentionMaxHeadDimOnCuda == 256);
  if (head_dim <= 64) return f.template operator()<64>();
  if (head_dim <= 128) return f.template operator()<128>();
  f.template operator()<256>();
}

}  // namespace ziggurat::kernels
