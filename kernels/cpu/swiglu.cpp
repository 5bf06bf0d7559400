#include <algorithm>

#include <kernels/cpu/vector_math.h>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/swiglu.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kBlock = 16384;  // elements a thread takes at once
constexpr int64_t kTile = 256;     // elements whose sigmoid is kept for both gradients

// out[i] = value(i), or += ; one branch for the whole tile
template <class T, class F>
void write(T* out, bool accumulate, int64_t n, const F& value) {
  using A = Accum<T>;
  if (accumulate) {
    for (int64_t i = 0; i < n; ++i) out[i] = T(A(out[i]) + value(i));
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = T(value(i));
  }
}

}  // namespace

template <Device D, class T>
void swiglu_forward(const SwigluArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "swiglu_forward");
  using A = Accum<T>;
  parallel_for_blocks(g.n, kBlock, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) g.y[i] = T(A(g.gate[i]) * sigmoid(A(g.gate[i])) * A(g.up[i]));
  });
}

// With s = sigmoid(gate): dgate = dy up s (1 + gate (1 - s)), dup = dy gate s
template <Device D, class T>
void swiglu_backward(const SwigluGradArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "swiglu_backward");
  using A = Accum<T>;
  parallel_for_blocks(g.n, kBlock, [=](int64_t begin, int64_t end) {
    A s[kTile];
    for (int64_t first = begin; first < end; first += kTile) {
      const int64_t size = std::min(kTile, end - first);
      const T *gate = g.gate + first, *up = g.up + first, *dy = g.dy + first;
      for (int64_t i = 0; i < size; ++i) s[i] = sigmoid(A(gate[i]));
      if (g.dgate != nullptr) {
        write(g.dgate + first, g.accumulate_dgate, size,
              [&](int64_t i) { return A(dy[i]) * A(up[i]) * s[i] * (A(1) + A(gate[i]) * (A(1) - s[i])); });
      }
      if (g.dup != nullptr) {
        write(g.dup + first, g.accumulate_dup, size, [&](int64_t i) { return A(dy[i]) * A(gate[i]) * s[i]; });
      }
    }
  });
}

template void swiglu_forward<Device::cpu>(const SwigluArgs<float>&, Stream&);
template void swiglu_forward<Device::cpu>(const SwigluArgs<bf16>&, Stream&);
template void swiglu_forward<Device::cpu>(const SwigluArgs<double>&, Stream&);
template void swiglu_backward<Device::cpu>(const SwigluGradArgs<float>&, Stream&);
template void swiglu_backward<Device::cpu>(const SwigluGradArgs<bf16>&, Stream&);
template void swiglu_backward<Device::cpu>(const SwigluGradArgs<double>&, Stream&);

}  // namespace ziggurat::kernels
