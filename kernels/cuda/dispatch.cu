// A block moves or combines one row, 16 bytes a thread at a time, or one value where sizes or addresses are
// no multiple of that. Floor: memory. gather and scatter read and write each row, scatter reads what it adds
// to; combine reads top_k rows and writes one; its backward reads top_k rows and dy (again for every further
// expert, from the cache) and writes top_k rows. Tables are 4 or 8 bytes a row. At most 2 FLOPs a value read.
// order_arrivals writes 8 bytes a row; each of its P L blocks reads all P L counts, from the cache.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/dispatch.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;  // a row of 1024 values in bf16 by 16 bytes

// y[to] = x[from], or +=, for the block's row: table[r] names the source (gather) or the destination
// (scatter), or nobody.
template <class T, int N, bool scatter>
__global__ void __launch_bounds__(kThreads)
    move_rows_kernel(const T* x, const int32_t* table, T* y, int64_t width, bool accumulate) {
  const int64_t row = blockIdx.x, named = table[row];
  if (named < 0) return;
  x += (scatter ? row : named) * width;
  y += (scatter ? named : row) * width;
#pragma unroll 1  // unrolled, ptxas spills a register
  for (int64_t i = threadIdx.x * N; i < width; i += kThreads * N) write(y + i, accumulate, load<N>(x + i));
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) combine_rows_kernel(CombineRowsArgs<T> g) {
  const int64_t token = blockIdx.x, first = token * g.top_k;
  for (int64_t i = threadIdx.x * N; i < g.width; i += kThreads * N) {
    Values<T, N> sum{};
    for (int64_t c = first; c < first + g.top_k; ++c) {
      const int64_t row = g.row[c];
      if (row < 0) continue;
      const Values<T, N> x = load<N>(g.x + row * g.width + i);
      const float weight = g.weights == nullptr ? 1.0f : g.weights[c];
#pragma unroll
      for (int n = 0; n < N; ++n) sum.v[n] += weight * x.v[n];
    }
    write(g.y + token * g.width + i, g.accumulate, sum);
  }
}

// dx[row] = weight dy, dweight = x[row] . dy
template <class T, int N>
__global__ void __launch_bounds__(kThreads) combine_rows_backward_kernel(CombineRowsGradArgs<T> g) {
  const CombineRowsArgs<T>& f = g.forward;
  const int64_t token = blockIdx.x, first = token * f.top_k;
  const T* dy = g.dy + token * f.width;
  for (int64_t c = first; c < first + f.top_k; ++c) {
    const int64_t row = f.row[c];
    float dot = 0;
    if (row >= 0) {
      const float weight = f.weights == nullptr ? 1.0f : f.weights[c];
      for (int64_t i = threadIdx.x * N; i < f.width; i += kThreads * N) {
        const Values<T, N> d = load<N>(dy + i);
        if (g.dweights != nullptr) {
          const Values<T, N> x = load<N>(f.x + row * f.width + i);
#pragma unroll
          for (int n = 0; n < N; ++n) dot += x.v[n] * d.v[n];
        }
        if (g.dx != nullptr) {
          Values<T, N> dx;
#pragma unroll
          for (int n = 0; n < N; ++n) dx.v[n] = weight * d.v[n];
          write(g.dx + row * f.width + i, g.accumulate_dx, dx);
        }
      }
    }
    if (g.dweights == nullptr) continue;
    dot = block_sum<kThreads>(dot);
    if (threadIdx.x == 0) g.dweights[c] = g.accumulate_dweights ? g.dweights[c] + dot : dot;
  }
}

// A block takes the rows of one source for one expert, and finds where they begin by adding up what comes
// before: in the order of the rows by (expert, source), in that of their arrival by (source, expert).
__global__ void __launch_bounds__(kThreads) order_arrivals_kernel(ArrivalOrderArgs g) {
  const auto expert = static_cast<int64_t>(blockIdx.x), source = static_cast<int64_t>(blockIdx.y);
  int before = 0, arrived = 0;
  for (int64_t i = threadIdx.x; i < g.ranks * g.experts; i += kThreads) {
    const int64_t e = i % g.experts, s = i / g.experts;
    const int rows = g.arriving[i];
    if (e < expert || (e == expert && s < source)) before += rows;
    if (i < source * g.experts + expert) arrived += rows;
  }
  const int row = block_sum<kThreads>(before), packed = block_sum<kThreads>(arrived);
  const int arrival = g.block > 0 ? static_cast<int>((source * g.experts + expert) * g.block) : packed;
  const int rows = g.arriving[source * g.experts + expert];
  if (threadIdx.x == 0) {
    if (source < g.sources) g.offsets[expert * g.sources + source] = row;
    if (expert == g.experts - 1 && source == g.ranks - 1) g.offsets[g.experts * g.sources] = row + rows;
  }
  for (int i = static_cast<int>(threadIdx.x); i < rows; i += kThreads) {
    g.arrival_of_row[row + i] = arrival + i;
    g.row_of_arrival[arrival + i] = row + i;
  }
  for (int64_t i = rows + threadIdx.x; i < g.block; i += kThreads) g.row_of_arrival[arrival + i] = -1;
  if (expert < g.experts - 1 || source < g.ranks - 1) return;
  for (int64_t i = row + rows + threadIdx.x; i < g.rows; i += kThreads) g.arrival_of_row[i] = -1;
}

template <bool scatter, class T>
void move_rows(const T* x, const int32_t* table, T* y, int64_t rows, int64_t width, bool accumulate,
               Stream& stream) {
  const auto blocks = static_cast<unsigned>(rows);
  if (fit_lanes(width, x, y)) {
    launch(move_rows_kernel<T, kLanes<T>, scatter>, blocks, kThreads, 0, stream, x, table, y, width,
           accumulate);
  } else {
    launch(move_rows_kernel<T, 1, scatter>, blocks, kThreads, 0, stream, x, table, y, width, accumulate);
  }
}

}  // namespace

template <Device D, class T>
void gather_rows(const GatherRowsArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "gather_rows");
  move_rows<false>(g.x, g.from, g.y, g.rows, g.width, false, stream);
}

template <Device D, class T>
void scatter_rows(const ScatterRowsArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "scatter_rows");
  move_rows<true>(g.x, g.to, g.y, g.rows, g.width, g.accumulate, stream);
}

template <Device D, class T>
void combine_rows(const CombineRowsArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "combine_rows");
  const auto blocks = static_cast<unsigned>(g.tokens);
  launch(fit_lanes(g.width, g.x, g.y) ? combine_rows_kernel<T, kLanes<T>> : combine_rows_kernel<T, 1>, blocks,
         kThreads, 0, stream, g);
}

template <Device D, class T>
void combine_rows_backward(const CombineRowsGradArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "combine_rows_backward");
  const auto blocks = static_cast<unsigned>(g.forward.tokens);
  launch(fit_lanes(g.forward.width, g.forward.x, g.dy, g.dx) ? combine_rows_backward_kernel<T, kLanes<T>>
                                                             : combine_rows_backward_kernel<T, 1>,
         blocks, kThreads, 0, stream, g);
}

template <Device D>
void order_arrivals(const ArrivalOrderArgs& g, Arena&, Stream& stream) {
  const Span span(stream.profile(), "order_arrivals");
  launch(order_arrivals_kernel, dim3(static_cast<unsigned>(g.experts), static_cast<unsigned>(g.ranks)),
         kThreads, 0, stream, g);
}

template void gather_rows<Device::cuda>(const GatherRowsArgs<float>&, Stream&);
template void gather_rows<Device::cuda>(const GatherRowsArgs<bf16>&, Stream&);
template void scatter_rows<Device::cuda>(const ScatterRowsArgs<float>&, Stream&);
template void scatter_rows<Device::cuda>(const ScatterRowsArgs<bf16>&, Stream&);
template void combine_rows<Device::cuda>(const CombineRowsArgs<float>&, Stream&);
template void combine_rows<Device::cuda>(const CombineRowsArgs<bf16>&, Stream&);
template void combine_rows_backward<Device::cuda>(const CombineRowsGradArgs<float>&, Stream&);
template void combine_rows_backward<Device::cuda>(const CombineRowsGradArgs<bf16>&, Stream&);
template void order_arrivals<Device::cuda>(const ArrivalOrderArgs&, Arena&, Stream&);

}  // namespace ziggurat::kernels
