// A block computes one row, 16 bytes of each tensor a thread at a time, or one value where sizes or addresses
// are no multiple of that. Every value is read once. Floor: forward 3 rows cols sizeof(T) bytes, 3 FLOPs a
// value; backward 5 rows cols sizeof(T) bytes (2 more for each gradient that is added to), 5 FLOPs a value;
// logits are 8 bytes a row. Memory's.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/mix.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;  // a row of 1024 values in bf16 by 16 bytes

struct Coefficients {
  // softmax of two logits = sigmoid of their difference; each side on its own keeps tiny values exact.
  __device__ explicit Coefficients(const float* logits) {
    const float l0 = logits[0], l1 = logits[1];
    a = 1.0f / (1.0f + expf(l1 - l0));
    b = 1.0f / (1.0f + expf(l0 - l1));
  }
  float a, b;
};

template <class T, int N>
__global__ void __launch_bounds__(kThreads) mix_forward_kernel(MixArgs<T> g) {
  const int64_t row = blockIdx.x, first = row * g.cols;
  const Coefficients c(g.logits + 2 * row);
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    const Values<T, N> a = load<N>(g.a + first + j), b = load<N>(g.b + first + j);
    Values<T, N> y;
#pragma unroll
    for (int i = 0; i < N; ++i) y.v[i] = c.a * a.v[i] + c.b * b.v[i];
    store(g.y + first + j, y);
  }
}

// da = c0 dy, db = c1 dy, dlogits_0 = c0 c1 (dy . a - dy . b) = -dlogits_1
template <class T, int N>
__global__ void __launch_bounds__(kThreads) mix_backward_kernel(MixGradArgs<T> g) {
  const int64_t row = blockIdx.x, first = row * g.cols;
  const Coefficients c(g.logits + 2 * row);
  float dot = 0;
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    const int64_t at = first + j;
    const Values<T, N> dy = load<N>(g.dy + at);
    if (g.dlogits != nullptr) {
      const Values<T, N> a = load<N>(g.a + at), b = load<N>(g.b + at);
#pragma unroll
      for (int i = 0; i < N; ++i) dot += dy.v[i] * (a.v[i] - b.v[i]);
    }
    Values<T, N> scaled;
    if (g.da != nullptr) {
#pragma unroll
      for (int i = 0; i < N; ++i) scaled.v[i] = c.a * dy.v[i];
      write(g.da + at, g.accumulate_da, scaled);
    }
    if (g.db != nullptr) {
#pragma unroll
      for (int i = 0; i < N; ++i) scaled.v[i] = c.b * dy.v[i];
      write(g.db + at, g.accumulate_db, scaled);
    }
  }
  if (g.dlogits == nullptr) return;
  const float d = c.a * c.b * block_sum<kThreads>(dot);
  if (threadIdx.x == 0) {
    float* out = g.dlogits + 2 * row;
    out[0] = g.accumulate_dlogits ? out[0] + d : d;
    out[1] = g.accumulate_dlogits ? out[1] - d : -d;
  }
}

}  // namespace

template <Device D, class T>
void mix_forward(const MixArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "mix_forward");
  const auto rows = static_cast<unsigned>(g.rows);
  launch(fit_lanes(g.cols, g.a, g.b, g.y) ? mix_forward_kernel<T, kLanes<T>> : mix_forward_kernel<T, 1>, rows,
         kThreads, 0, stream, g);
}

template <Device D, class T>
void mix_backward(const MixGradArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "mix_backward");
  const auto rows = static_cast<unsigned>(g.rows);
  launch(fit_lanes(g.cols, g.a, g.b, g.dy, g.da, g.db) ? mix_backward_kernel<T, kLanes<T>>
                                                       : mix_backward_kernel<T, 1>,
         rows, kThreads, 0, stream, g);
}

template void mix_forward<Device::cuda>(const MixArgs<float>&, Stream&);
template void mix_forward<Device::cuda>(const MixArgs<bf16>&, Stream&);
template void mix_backward<Device::cuda>(const MixGradArgs<float>&, Stream&);
template void mix_backward<Device::cuda>(const MixGradArgs<bf16>&, Stream&);

}  // namespace ziggurat::kernels
