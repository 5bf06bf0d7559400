// One thread computes 16 bytes of each tensor, or one value where sizes or addresses are no multiple of that.
// Floor: forward 3 n sizeof(T) bytes, 6 FLOPs and one exponential a value; backward 5 n sizeof(T) bytes (2
// more for each gradient that is added to), 11 FLOPs and one exponential. Memory's: 0.5 FLOP a byte in fp32
// and 1 in bf16, where a GPU has 15 and more.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>

#include <ziggurat/kernels/swiglu.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class T, int N>
__global__ void __launch_bounds__(kThreads) swiglu_forward_kernel(SwigluArgs<T> g) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= g.n) return;
  const Values<T, N> gate = load<N>(g.gate + at), up = load<N>(g.up + at);
  Values<T, N> y;
#pragma unroll
  for (int i = 0; i < N; ++i) y.v[i] = gate.v[i] * sigmoid(gate.v[i]) * up.v[i];
  store(g.y + at, y);
}

// With s = sigmoid(gate): dgate = dy up s (1 + gate (1 - s)), dup = dy gate s
template <class T, int N>
__global__ void __launch_bounds__(kThreads) swiglu_backward_kernel(SwigluGradArgs<T> g) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= g.n) return;
  const Values<T, N> gate = load<N>(g.gate + at), dy = load<N>(g.dy + at);
  Values<T, N> s;
#pragma unroll
  for (int i = 0; i < N; ++i) s.v[i] = sigmoid(gate.v[i]);
  if (g.dgate != nullptr) {
    const Values<T, N> up = load<N>(g.up + at);
    Values<T, N> dgate;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      dgate.v[i] = dy.v[i] * up.v[i] * s.v[i] * (1.0f + gate.v[i] * (1.0f - s.v[i]));
    }
    write(g.dgate + at, g.accumulate_dgate, dgate);
  }
  if (g.dup != nullptr) {
    Values<T, N> dup;
#pragma unroll
    for (int i = 0; i < N; ++i) dup.v[i] = dy.v[i] * gate.v[i] * s.v[i];
    write(g.dup + at, g.accumulate_dup, dup);
  }
}

}  // namespace

template <Device D, class T>
void swiglu_forward(const SwigluArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "swiglu_forward");
  constexpr int kN = kLanes<T>;
  if (fit_lanes(g.n, g.gate, g.up, g.y)) {
    launch(swiglu_forward_kernel<T, kN>, blocks_for(g.n, kThreads * kN), kThreads, 0, stream, g);
  } else {
    launch(swiglu_forward_kernel<T, 1>, blocks_for(g.n, kThreads), kThreads, 0, stream, g);
  }
}

template <Device D, class T>
void swiglu_backward(const SwigluGradArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "swiglu_backward");
  constexpr int kN = kLanes<T>;
  if (fit_lanes(g.n, g.gate, g.up, g.dy, g.dgate, g.dup)) {
    launch(swiglu_backward_kernel<T, kN>, blocks_for(g.n, kThreads * kN), kThreads, 0, stream, g);
  } else {
    launch(swiglu_backward_kernel<T, 1>, blocks_for(g.n, kThreads), kThreads, 0, stream, g);
  }
}

template void swiglu_forward<Device::cuda>(const SwigluArgs<float>&, Stream&);
template void swiglu_forward<Device::cuda>(const SwigluArgs<bf16>&, Stream&);
template void swiglu_backward<Device::cuda>(const SwigluGradArgs<float>&, Stream&);
template void swiglu_backward<Device::cuda>(const SwigluGradArgs<bf16>&, Stream&);

}  // namespace ziggurat::kernels
