// Forward: a block writes one row, 16 bytes a thread at a time, or one value where sizes or addresses are no
// multiple of that. Backward: the first row of each token (or position) adds all rows of that token, in
// order: no atomics, and the sums have the CPU's bits. It finds them by reading all tokens, rows^2
// comparisons in all: of 8192 rows 268 MB from the L2 cache, as long as the gradients themselves take. Floor:
// memory; forward 2 rows cols sizeof(T) bytes (3 with positions) and at most 1 FLOP a value; backward, for
// each of the two tables, rows cols sizeof(T) bytes and 8 cols bytes for each token that occurs; 1 FLOP a
// value.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/embedding.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;

// Which row of a table row i of the batch belongs to: keys[i], or i % period without keys.
struct Keys {
  const int32_t* keys;
  unsigned period;
  __device__ int64_t operator[](int64_t i) const {
    return keys == nullptr ? static_cast<unsigned>(i) % period : keys[i];
  }
};

template <class T, int N>
__global__ void __launch_bounds__(kThreads) embedding_forward_kernel(EmbeddingArgs<T> g, Keys positions) {
  const int64_t row = blockIdx.x;
  const T* token = g.table + g.tokens[row] * g.cols;
  const T* place = g.position_table == nullptr ? nullptr : g.position_table + positions[row] * g.cols;
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    Values<T, N> y = load<N>(token + j);
    if (place != nullptr) {
      const Values<T, N> other = load<N>(place + j);
#pragma unroll
      for (int i = 0; i < N; ++i) y.v[i] += other.v[i];
    }
    store(g.y + row * g.cols + j, y);
  }
}

// N floats at an address of which 16 bytes can be loaded if N > 1.
template <int N>
__device__ __forceinline__ void load_floats(const float* from, float (&to)[N]) {
  if constexpr (N == 1) {
    to[0] = *from;
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const Values<float, 4> part = load<4>(from + i);
#pragma unroll
      for (int k = 0; k < 4; ++k) to[i + k] = part.v[k];
    }
  }
}
template <int N>
__device__ __forceinline__ void store_floats(float* to, const float (&from)[N]) {
  if constexpr (N == 1) {
    *to = from[0];
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4)
      store(to + i, Values<float, 4>{{from[i], from[i + 1], from[i + 2], from[i + 3]}});
  }
}

// Block (i, tile): if row i is the first of its key, dtable[key] += dy of every row of that key, in order; a
// tile of kThreads * N columns.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    embedding_backward_kernel(Keys keys, int64_t rows, int64_t cols, const T* dy, float* dtable) {
  __shared__ unsigned equal[kThreads / kWarp];  // bit l of w: row first + 32 w + l has the key
  const int64_t row = blockIdx.x, key = keys[row];
  const int thread = static_cast<int>(threadIdx.x);
  bool earlier = false;
  for (int64_t i = thread; i < row; i += kThreads) earlier = earlier || keys[i] == key;
  if (__syncthreads_or(earlier)) return;

  const int64_t column = (int64_t{blockIdx.y} * kThreads + thread) * N;
  const bool mine = column < cols;
  float sum[N] = {};
  if (mine) load_floats(dtable + key * cols + column, sum);
  for (int64_t first = row; first < rows; first += kThreads) {
    const int64_t i = first + thread;
    const unsigned in_warp = __ballot_sync(kWholeWarp, i < rows && keys[i] == key);
    if (thread % kWarp == 0) equal[thread / kWarp] = in_warp;
    __syncthreads();
    for (int w = 0; w < kThreads / kWarp; ++w) {
      for (unsigned left = equal[w]; left != 0 && mine; left &= left - 1) {
        const int64_t match = first + w * kWarp + __ffs(static_cast<int>(left)) - 1;
        const Values<T, N> d = load<N>(dy + match * cols + column);
#pragma unroll
        for (int n = 0; n < N; ++n) sum[n] += d.v[n];
      }
    }
    __syncthreads();  // before the next rows' bits
  }
  if (mine) store_floats(dtable + key * cols + column, sum);
}

template <class T>
void add_rows(Keys keys, const EmbeddingGradArgs<T>& g, float* dtable, Stream& stream) {
  if (dtable == nullptr || g.cols == 0) return;
  constexpr int kN = kLanes<T>;
  const auto rows = static_cast<unsigned>(g.rows);
  if (fit_lanes(g.cols, g.dy) && fit_lanes(g.cols, dtable)) {
    launch(embedding_backward_kernel<T, kN>, dim3(rows, blocks_for(g.cols, kThreads * kN)), kThreads, 0,
           stream, keys, g.rows, g.cols, g.dy, dtable);
  } else {
    launch(embedding_backward_kernel<T, 1>, dim3(rows, blocks_for(g.cols, kThreads)), kThreads, 0, stream,
           keys, g.rows, g.cols, g.dy, dtable);
  }
}

}  // namespace

template <Device D, class T>
void embedding_forward(const EmbeddingArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "embedding_forward");
  const Keys positions{g.positions, static_cast<unsigned>(g.sequence_length)};
  const auto rows = static_cast<unsigned>(g.rows);
  if (fit_lanes(g.cols, g.table, g.position_table, g.y)) {
    launch(embedding_forward_kernel<T, kLanes<T>>, rows, kThreads, 0, stream, g, positions);
  } else {
    launch(embedding_forward_kernel<T, 1>, rows, kThreads, 0, stream, g, positions);
  }
}

template <Device D, class T>
void embedding_backward(const EmbeddingGradArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "embedding_backward");
  add_rows(Keys{g.tokens, 1}, g, g.dtable, stream);
  add_rows(Keys{g.positions, static_cast<unsigned>(g.sequence_length)}, g, g.dposition_table, stream);
}

template void embedding_forward<Device::cuda>(const EmbeddingArgs<float>&, Stream&);
template void embedding_forward<Device::cuda>(const EmbeddingArgs<bf16>&, Stream&);
template void embedding_backward<Device::cuda>(const EmbeddingGradArgs<float>&, Stream&);
template void embedding_backward<Device::cuda>(const EmbeddingGradArgs<bf16>&, Stream&);

}  // namespace ziggurat::kernels
