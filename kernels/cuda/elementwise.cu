// One thread computes 16 bytes of each tensor, or one value where sizes or addresses are no multiple of that;
// of conversions 8 values. Floor: accumulate, add and multiply 3 n sizeof(T) bytes and 1 FLOP a value
// (multiply that adds: 4 and 2), convert n (sizeof(From) + sizeof(To)) bytes. Memory's.
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

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    multiply_kernel(const T* a, const T* b, T* y, bool accumulate, int64_t n) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= n) return;
  Values<T, N> product = load<N>(a + at);
  const Values<T, N> other = load<N>(b + at);
#pragma unroll
  for (int i = 0; i < N; ++i) product.v[i] *= other.v[i];
  write(y + at, accumulate, product);
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) fill_kernel(T value, T* y, int64_t n) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= n) return;
  Values<T, N> values;
#pragma unroll
  for (int i = 0; i < N; ++i) values.v[i] = to_float(value);
  store(y + at, values);
}

template <class From, class To, int N>
__global__ void __launch_bounds__(kThreads) convert_kernel(const From* x, To* y, int64_t n) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= n) return;
  constexpr int kFrom = N == 1 ? 1 : kLanes<From>, kTo = N == 1 ? 1 : kLanes<To>;
  float values[N];
#pragma unroll
  for (int begin = 0; begin < N; begin += kFrom) {
    const Values<From, kFrom> part = load<kFrom>(x + at + begin);
#pragma unroll
    for (int i = 0; i < kFrom; ++i) values[begin + i] = part.v[i];
  }
#pragma unroll
  for (int begin = 0; begin < N; begin += kTo) {
    Values<To, kTo> part;
#pragma unroll
    for (int i = 0; i < kTo; ++i) part.v[i] = values[begin + i];
    store(y + at + begin, part);
  }
}

template <class T>
void start_add(const T* a, const T* b, T* y, int64_t n, Stream& stream) {
  constexpr int kN = kLanes<T>;
  if (fit_lanes(n, a, b, y)) {
    launch(add_kernel<T, kN>, blocks_for(n, kThreads * kN), kThreads, 0, stream, a, b, y, n);
  } else {
    launch(add_kernel<T, 1>, blocks_for(n, kThreads), kThreads, 0, stream, a, b, y, n);
  }
}

}  // namespace

template <Device D, class T>
void accumulate(const T* x, T* y, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "accumulate");
  start_add<T>(y, x, y, n, stream);
}

template <Device D, class T>
void add(const T* a, const T* b, T* y, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "add");
  start_add(a, b, y, n, stream);
}

template <Device D, class T>
void multiply(const T* a, const T* b, T* y, bool accumulate, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "multiply");
  constexpr int kN = kLanes<T>;
  if (fit_lanes(n, a, b, y)) {
    launch(multiply_kernel<T, kN>, blocks_for(n, kThreads * kN), kThreads, 0, stream, a, b, y, accumulate, n);
  } else {
    launch(multiply_kernel<T, 1>, blocks_for(n, kThreads), kThreads, 0, stream, a, b, y, accumulate, n);
  }
}

template <Device D, class T>
void fill(T value, T* y, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "fill");
  constexpr int kN = kLanes<T>;
  if (fit_lanes(n, y)) {
    launch(fill_kernel<T, kN>, blocks_for(n, kThreads * kN), kThreads, 0, stream, value, y, n);
  } else {
    launch(fill_kernel<T, 1>, blocks_for(n, kThreads), kThreads, 0, stream, value, y, n);
  }
}

template <Device D, class From, class To>
void convert(const From* x, To* y, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "convert");
  constexpr int kN = 8;
  if (n % kN == 0 && fit_lanes(n, x) && fit_lanes(n, y)) {
    launch(convert_kernel<From, To, kN>, blocks_for(n, kThreads * kN), kThreads, 0, stream, x, y, n);
  } else {
    launch(convert_kernel<From, To, 1>, blocks_for(n, kThreads), kThreads, 0, stream, x, y, n);
  }
}

template void accumulate<Device::cuda>(const float*, float*, int64_t, Stream&);
template void accumulate<Device::cuda>(const bf16*, bf16*, int64_t, Stream&);
template void add<Device::cuda>(const float*, const float*, float*, int64_t, Stream&);
template void add<Device::cuda>(const bf16*, const bf16*, bf16*, int64_t, Stream&);
template void multiply<Device::cuda>(const float*, const float*, float*, bool, int64_t, Stream&);
template void multiply<Device::cuda>(const bf16*, const bf16*, bf16*, bool, int64_t, Stream&);
template void fill<Device::cuda>(float, float*, int64_t, Stream&);
template void fill<Device::cuda>(bf16, bf16*, int64_t, Stream&);
template void convert<Device::cuda>(const bf16*, float*, int64_t, Stream&);
template void convert<Device::cuda>(const float*, bf16*, int64_t, Stream&);
template void convert<Device::cuda>(const float*, float*, int64_t, Stream&);

}  // namespace ziggurat::kernels
