// Forward: a block normalises one row, 16 bytes a thread at a time, or one value where sizes or addresses are
// no multiple of that; the second time a row is read it comes from the cache. Backward: a block takes 32 rows
// one after the other, and keeps the weight's gradient of its columns in shared memory. Floor: forward 2 rows
// cols sizeof(T) bytes and 4 FLOPs a value, backward 3 rows cols sizeof(T) bytes (1 more where dx is added
// to) and 9 FLOPs a value. Memory's.
#include <kernels/cuda/device/dynamic_shared.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/partial_sums.h>
#include <kernels/cuda/device/rms_row.h>

#include <ziggurat/kernels/rms_norm.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;

template <class T, int N>
__global__ void __launch_bounds__(kThreads) rms_norm_forward_kernel(RmsNormArgs<T> g) {
  const int64_t row = blockIdx.x, first = row * g.cols;
  const float rstd = rms_row<N>(BlockTeam<kThreads>(), g.x + first, g.weight, g.eps, g.cols, g.y + first);
  if (threadIdx.x == 0) g.rstd[row] = rstd;
}

// partial [blocks, cols]: the weight's gradient of each block of rows, or null
template <class T, int N>
__global__ void __launch_bounds__(kThreads) rms_norm_backward_kernel(RmsNormGradArgs<T> g, float* partial) {
  // [cols]; each thread's columns are its own
  float* const dweight = partial == nullptr ? nullptr : dynamic_shared<float>();
  const int64_t begin = blockIdx.x * kRowsOfPartialSum;
  const int64_t end = begin + kRowsOfPartialSum < g.rows ? begin + kRowsOfPartialSum : g.rows;
  if (dweight != nullptr) {
    for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
#pragma unroll
      for (int i = 0; i < N; ++i) dweight[j + i] = 0;
    }
  }
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * g.cols;
    rms_row_gradient<N>(BlockTeam<kThreads>(), g.x + first, g.weight, g.rstd[row], g.dy + first, g.cols,
                        g.accumulate_dx, g.dx == nullptr ? nullptr : g.dx + first, dweight);
  }
  if (dweight == nullptr) return;
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    float sums[N];
    load_floats(dweight + j, sums);
    store_floats(partial + blockIdx.x * g.cols + j, sums);
  }
}

}  // namespace

template <Device D, class T>
void rms_norm_forward(const RmsNormArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "rms_norm_forward");
  const auto rows = static_cast<unsigned>(g.rows);
  launch(fit_lanes(g.cols, g.x, g.y) && fit_lanes(g.cols, g.weight) ? rms_norm_forward_kernel<T, kLanes<T>>
                                                                    : rms_norm_forward_kernel<T, 1>,
         rows, kThreads, 0, stream, g);
}

template <Device D, class T>
void rms_norm_backward(const RmsNormGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "rms_norm_backward");
  const ArenaScope scope(workspace);
  const unsigned blocks = blocks_for(g.rows, kRowsOfPartialSum);
  float* const partial =
      g.dweight == nullptr ? nullptr : workspace.take_on_device<float>(int64_t{blocks} * g.cols);
  const size_t shared = partial == nullptr ? 0 : static_cast<size_t>(g.cols) * sizeof(float);
  launch(fit_lanes(g.cols, g.x, g.dy, g.dx) && fit_lanes(g.cols, g.weight)
             ? rms_norm_backward_kernel<T, kLanes<T>>
             : rms_norm_backward_kernel<T, 1>,
         blocks, kThreads, shared, stream, g, partial);
  add_partial_sums(partial, blocks, g.cols, g.dweight, stream);
}

template void rms_norm_forward<Device::cuda>(const RmsNormArgs<float>&, Stream&);
template void rms_norm_forward<Device::cuda>(const RmsNormArgs<bf16>&, Stream&);
template void rms_norm_backward<Device::cuda>(const RmsNormGradArgs<float>&, Arena&, Stream&);
template void rms_norm_backward<Device::cuda>(const RmsNormGradArgs<bf16>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
