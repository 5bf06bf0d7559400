// One thread computes 16 bytes of each tensor, or one value where sizes or addresses are no multiple of that.
// Floor: memory; 3 n sizeof(T) bytes and one FLOP a value (accumulate reads what it writes).
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>

#include <ziggurat/kernels/elementwise.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;

template <class T, int N>
__global__ void __launch_bounds__(kThreads) add_kernel(const T* a, const T* b, T* y, int64_t n) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= n) return;
  Values<T, N> sum = load<N>(a + at);
  const Values<T, N> other = load<N>(b + at);
#pragma unroll
  for (int i = 0; i < N; ++i) sum.v[i] += other.v[i];
  store(y + at, sum);
}

template <class T>
void launch_add(const T* a, const T* b, T* y, int64_t n, Stream& stream) {
  constexpr int kN = kLanes<T>;
  if (fit_lanes(n, a, b, y)) {
    launch(add_kernel<T, kN>, blocks_for(n, kThreads * kN), kThreads, 0, stream, a, b, y, n);
  } else {
    launch(add_kernel<T, 1>, blocks_for(n, kThreads), kThreads, 0, stream, a, b, y, n);
  }
}

}  // namespace

template <Device D, class T>
void add(const T* a, const T* b, T* y, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "add");
  launch_add(a, b, y, n, stream);
}

template <Device D, class T>
void accumulate(const T* x, T* y, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "accumulate");
  launch_add<T>(y, x, y, n, stream);
}

template void accumulate<Device::cuda>(const float*, float*, int64_t, Stream&);
template void accumulate<Device::cuda>(const bf16*, bf16*, int64_t, Stream&);
template void add<Device::cuda>(const float*, const float*, float*, int64_t, Stream&);
template void add<Device::cuda>(const bf16*, const bf16*, bf16*, int64_t, Stream&);

}  // namespace ziggurat::kernels
