// A block computes one row, 16 bytes of each tensor a thread at a time, or one value where sizes or addresses
// are no multiple of that. Every value is read once. Floor: forward 3 rows cols sizeof(T) bytes and 2 FLOPs a
// value; backward 3 rows cols sizeof(T) bytes (1 more where db is added to) and 3 FLOPs a value; logits are 4
// bytes a row. Memory's.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/gated_add.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;

template <class T, int N>
__global__ void __launch_bounds__(kThreads) gated_add_forward_kernel(GatedAddArgs<T> g) {
  const int64_t row = blockIdx.x, first = row * g.cols;
  const float s = sigmoid(g.logits[row]);
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    const Values<T, N> a = load<N>(g.a + first + j), b = load<N>(g.b + first + j);
    Values<T, N> y;
#pragma unroll
    for (int i = 0; i < N; ++i) y.v[i] = a.v[i] + s * b.v[i];
    store(g.y + first + j, y);
  }
}

// db = s dy, dlogit = s (1 - s) dy . b
template <class T, int N>
__global__ void __launch_bounds__(kThreads) gated_add_backward_kernel(GatedAddGradArgs<T> g) {
  const int64_t row = blockIdx.x, first = row * g.cols;
  const float logit = g.logits[row], s = sigmoid(logit);
  float dot = 0;
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    const int64_t at = first + j;
    const Values<T, N> dy = load<N>(g.dy + at);
    if (g.dlogits != nullptr) {
      const Values<T, N> b = load<N>(g.b + at);
#pragma unroll
      for (int i = 0; i < N; ++i) dot += dy.v[i] * b.v[i];
    }
    if (g.db != nullptr) {
      Values<T, N> scaled;
#pragma unroll
      for (int i = 0; i < N; ++i) scaled.v[i] = s * dy.v[i];
      write(g.db + at, g.accumulate_db, scaled);
    }
  }
  if (g.dlogits == nullptr) return;
  const float d = s * sigmoid(-logit) * block_sum<kThreads>(dot);
  if (threadIdx.x == 0) g.dlogits[row] = g.accumulate_dlogits ? g.dlogits[row] + d : d;
}

}  // namespace

template <Device D, class T>
void gated_add_forward(const GatedAddArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "gated_add_forward");
  const auto rows = static_cast<unsigned>(g.rows);
  launch(fit_lanes(g.cols, g.a, g.b, g.y) ? gated_add_forward_kernel<T, kLanes<T>>
                                          : gated_add_forward_kernel<T, 1>,
         rows, kThreads, 0, stream, g);
}

template <Device D, class T>
void gated_add_backward(const GatedAddGradArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "gated_add_backward");
  const auto rows = static_cast<unsigned>(g.rows);
  launch(fit_lanes(g.cols, g.b, g.dy, g.db) ? gated_add_backward_kernel<T, kLanes<T>>
                                            : gated_add_backward_kernel<T, 1>,
         rows, kThreads, 0, stream, g);
}

template void gated_add_forward<Device::cuda>(const GatedAddArgs<float>&, Stream&);
template void gated_add_forward<Device::cuda>(const GatedAddArgs<bf16>&, Stream&);
template void gated_add_backward<Device::cuda>(const GatedAddGradArgs<float>&, Stream&);
template void gated_add_backward<Device::cuda>(const GatedAddGradArgs<bf16>&, Stream&);

}  // namespace ziggurat::kernels
