#include <algorithm>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {
constexpr int64_t kBlock = 16384;  // elements a thread takes at once: fits L2 with two operands
}

template <Device D, class T>
void accumulate(const T* x, T* y, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "accumulate");
  parallel_for_blocks(n, kBlock, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = T(Accum<T>(y[i]) + Accum<T>(x[i]));
  });
}

template <Device D, class T>
void add(const T* a, const T* b, T* y, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "add");
  parallel_for_blocks(n, kBlock, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = T(Accum<T>(a[i]) + Accum<T>(b[i]));
  });
}

template <Device D, class T>
void multiply(const T* a, const T* b, T* y, bool accumulate, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "multiply");
  using A = Accum<T>;
  parallel_for_blocks(n, kBlock, [=](int64_t begin, int64_t end) {
    if (accumulate) {
      for (int64_t i = begin; i < end; ++i) y[i] = T(A(y[i]) + A(a[i]) * A(b[i]));
    } else {
      for (int64_t i = begin; i < end; ++i) y[i] = T(A(a[i]) * A(b[i]));
    }
  });
}

template <Device D, class T>
void fill(T value, T* y, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "fill");
  parallel_for_blocks(n, kBlock, [=](int64_t begin, int64_t end) { std::fill(y + begin, y + end, value); });
}

template <Device D, class From, class To>
void convert(const From* x, To* y, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "convert");
  parallel_for_blocks(n, kBlock, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = To(Accum<From>(x[i]));
  });
}

template void accumulate<Device::cpu>(const float*, float*, int64_t, Stream&);
template void accumulate<Device::cpu>(const bf16*, bf16*, int64_t, Stream&);
template void accumulate<Device::cpu>(const double*, double*, int64_t, Stream&);
template void add<Device::cpu>(const float*, const float*, float*, int64_t, Stream&);
template void add<Device::cpu>(const bf16*, const bf16*, bf16*, int64_t, Stream&);
template void add<Device::cpu>(const double*, const double*, double*, int64_t, Stream&);
template void multiply<Device::cpu>(const float*, const float*, float*, bool, int64_t, Stream&);
template void multiply<Device::cpu>(const bf16*, const bf16*, bf16*, bool, int64_t, Stream&);
template void multiply<Device::cpu>(const double*, const double*, double*, bool, int64_t, Stream&);
template void fill<Device::cpu>(float, float*, int64_t, Stream&);
template void fill<Device::cpu>(bf16, bf16*, int64_t, Stream&);
template void fill<Device::cpu>(double, double*, int64_t, Stream&);
template void convert<Device::cpu>(const bf16*, float*, int64_t, Stream&);
template void convert<Device::cpu>(const float*, bf16*, int64_t, Stream&);
template void convert<Device::cpu>(const float*, float*, int64_t, Stream&);
template void convert<Device::cpu>(const double*, double*, int64_t, Stream&);

}  // namespace ziggurat::kernels
