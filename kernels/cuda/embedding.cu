// Forward: a block writes one row, 16 bytes a thread at a time, or one value where sizes or addresses are no
// multiple of that. Backward: device/add_rows.h, whose sums have the CPU's bits. Floor: memory; forward 2
// rows cols sizeof(T) bytes (3 with positions) and at most 1 FLOP a value; backward, for each of the two
// tables, rows cols sizeof(T) bytes and 8 cols bytes for each token that occurs; 1 FLOP a value.
#include <kernels/cuda/device/add_rows.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>

#include <ziggurat/kernels/embedding.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;

template <class T, int N>
__global__ void __launch_bounds__(kThreads) embedding_forward_kernel(EmbeddingArgs<T> g, Keys positions) {
  const int64_t row = blockIdx.x;
  const bool has_row = g.tokens[row] >= 0;
  const T* token = g.table + (has_row ? g.tokens[row] : 0) * g.cols;
  const T* place = g.position_table == nullptr ? nullptr : g.position_table + positions[row] * g.cols;
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    Values<T, N> y{};
    if (has_row) y = load<N>(token + j);
    if (place != nullptr) {
      const Values<T, N> other = load<N>(place + j);
#pragma unroll
      for (int i = 0; i < N; ++i) y.v[i] += other.v[i];
    }
    store(g.y + row * g.cols + j, y);
  }
}

__global__ void __launch_bounds__(kThreads) rows_of_part_kernel(RowsOfPartArgs g) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= g.n) return;
  const int64_t row = g.ids[i] - g.first;
  g.row_of_part[i] = g.ids[i] != g.none && row >= 0 && row < g.rows ? static_cast<int32_t>(row) : -1;
}

__global__ void __launch_bounds__(kThreads)
    count_positions_kernel(int64_t first, int64_t n, int64_t length, int32_t* positions) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) positions[i] = static_cast<int32_t>((first + i) % length);
}

}  // namespace

template <Device D, class T>
void embedding_forward(const EmbeddingArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "embedding_forward");
  const Keys positions{g.positions, static_cast<unsigned>(g.sequence_length)};
  const auto rows = static_cast<unsigned>(g.rows);
  launch(fit_lanes(g.cols, g.table, g.position_table, g.y) ? embedding_forward_kernel<T, kLanes<T>>
                                                           : embedding_forward_kernel<T, 1>,
         rows, kThreads, 0, stream, g, positions);
}

template <Device D, class T>
void embedding_backward(const EmbeddingGradArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "embedding_backward");
  const Keys positions{g.positions, static_cast<unsigned>(g.sequence_length)};
  add_rows(Keys{g.tokens}, g.rows, g.cols, g.dy, nullptr, g.dtable, stream);
  add_rows(positions, g.rows, g.cols, g.dy, nullptr, g.dposition_table, stream);
}

template <Device D>
void rows_of_part(const RowsOfPartArgs& g, Stream& stream) {
  const Span span(stream.profile(), "rows_of_part");
  launch(rows_of_part_kernel, blocks_for(g.n, kThreads), kThreads, 0, stream, g);
}

template <Device D>
void count_positions(int64_t first, int64_t n, int64_t length, int32_t* positions, Stream& stream) {
  const Span span(stream.profile(), "count_positions");
  launch(count_positions_kernel, blocks_for(n, kThreads), kThreads, 0, stream, first, n, length, positions);
}

template void count_positions<Device::cuda>(int64_t, int64_t, int64_t, int32_t*, Stream&);
template void rows_of_part<Device::cuda>(const RowsOfPartArgs&, Stream&);
template void embedding_forward<Device::cuda>(const EmbeddingArgs<float>&, Stream&);
template void embedding_forward<Device::cuda>(const EmbeddingArgs<bf16>&, Stream&);
template void embedding_backward<Device::cuda>(const EmbeddingGradArgs<float>&, Stream&);
template void embedding_backward<Device::cuda>(const EmbeddingGradArgs<bf16>&, Stream&);

}  // namespace ziggurat::kernels
