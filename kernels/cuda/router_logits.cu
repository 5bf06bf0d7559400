// One thread has 16 bytes of x or dx, four values to a block of Philox; where sizes or addresses are no
// multiple of that, four single values. Floor: n (sizeof(T) + 4) bytes, one more sizeof(T) where dx is added
// to. Noise takes 15 integer operations a value (dropout.cu), 2 or 3 a byte, where an H100 has about 5: it is
// memory's.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>

#include <ziggurat/kernels/router_logits.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kBlock = 4;  // values of a block of Philox

template <int N>
inline constexpr int64_t kValues = N == 1 ? kBlock : N;  // of a thread

// Of the elements of one block of Philox. The CPU's bits: fused where it fuses.
__device__ __forceinline__ void noise_of_block(const Philox& rng, int64_t block, float eps,
                                               float (&noise)[kBlock]) {
  const Philox::Block bits = rng.block(static_cast<uint64_t>(block));
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    const float u = Philox::to_uniform(bits[static_cast<size_t>(i)]);
    noise[i] = __fmaf_rn(eps, __fmaf_rn(2.0f, u, -1.0f), 1.0f);
  }
}

// Of elements [first, first + kValues<N>).
template <int N>
__device__ __forceinline__ void noise_of(const LatePhilox& stream, int64_t first, float eps,
                                         float (&noise)[kValues<N>]) {
#pragma unroll
  for (int i = 0; i < kValues<N>; ++i) noise[i] = 1.0f;
  if (!(eps > 0)) return;
  const Philox rng = stream.now();
#pragma unroll
  for (int block = 0; block < kValues<N> / kBlock; ++block) {
    float part[kBlock];
    noise_of_block(rng, first / kBlock + block, eps, part);
#pragma unroll
    for (int i = 0; i < kBlock; ++i) noise[block * kBlock + i] = part[i];
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) router_input_forward_kernel(RouterInputArgs<T> g, float eps) {
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kValues<N>;
  if (first >= g.n) return;
  float noise[kValues<N>];
  noise_of<N>(g.rng, g.first + first, eps, noise);
  if constexpr (N == 1) {
    for (int i = 0; i < kBlock && first + i < g.n; ++i) {
      g.y[first + i] = to_float(g.x[first + i]) * noise[i];
    }
  } else {
    const Values<T, N> x = load<N>(g.x + first);
    float y[N];
#pragma unroll
    for (int i = 0; i < N; ++i) y[i] = x.v[i] * noise[i];
    store_floats(g.y + first, y);
  }
}

// dx = dy noise
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    router_input_backward_kernel(RouterInputGradArgs<T> g, float eps) {
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kValues<N>;
  if (first >= g.n) return;
  float noise[kValues<N>];
  noise_of<N>(g.rng, g.first + first, eps, noise);
  if constexpr (N == 1) {
    for (int i = 0; i < kBlock && first + i < g.n; ++i) {
      const float earlier = g.accumulate_dx ? to_float(g.dx[first + i]) : 0.0f;
      g.dx[first + i] = rounded<T>(__fmaf_rn(g.dy[first + i], noise[i], earlier));
    }
  } else {
    float dy[N];
    load_floats(g.dy + first, dy);
    Values<T, N> dx{};
    if (g.accumulate_dx) dx = load<N>(g.dx + first);
#pragma unroll
    for (int i = 0; i < N; ++i) dx.v[i] = __fmaf_rn(dy[i], noise[i], dx.v[i]);
    store(g.dx + first, dx);
  }
}

}  // namespace

template <Device D, class T>
void router_input_forward(const RouterInputArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_input_forward");
  const auto eps = static_cast<float>(g.jitter_eps);
  constexpr int kN = kLanes<T>;
  if (fit_lanes(g.n, g.x) && fit_lanes(g.n, g.y)) {
    launch(router_input_forward_kernel<T, kN>, blocks_for(g.n, kThreads * kValues<kN>), kThreads, 0, stream,
           g, eps);
  } else {
    launch(router_input_forward_kernel<T, 1>, blocks_for(g.n, kThreads * kValues<1>), kThreads, 0, stream, g,
           eps);
  }
}

template <Device D, class T>
void router_input_backward(const RouterInputGradArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_input_backward");
  const auto eps = static_cast<float>(g.jitter_eps);
  constexpr int kN = kLanes<T>;
  if (fit_lanes(g.n, g.dx) && fit_lanes(g.n, g.dy)) {
    launch(router_input_backward_kernel<T, kN>, blocks_for(g.n, kThreads * kValues<kN>), kThreads, 0, stream,
           g, eps);
  } else {
    launch(router_input_backward_kernel<T, 1>, blocks_for(g.n, kThreads * kValues<1>), kThreads, 0, stream, g,
           eps);
  }
}

template void router_input_forward<Device::cuda>(const RouterInputArgs<float>&, Stream&);
template void router_input_forward<Device::cuda>(const RouterInputArgs<bf16>&, Stream&);
template void router_input_backward<Device::cuda>(const RouterInputGradArgs<float>&, Stream&);
template void router_input_backward<Device::cuda>(const RouterInputGradArgs<bf16>&, Stream&);

}  // namespace ziggurat::kernels
