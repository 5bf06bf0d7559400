#include <cmath>

#include <kernels/cpu/row_sums.h>
#include <kernels/cpu/scaled_row.h>

#include <ziggurat/kernels/mix.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kRows = 32;  // rows of a block

template <class A>
struct Coefficients {
  // softmax of two logits = sigmoid of their difference; each side on its own keeps tiny values exact.
  explicit Coefficients(const A* logits)
      : a(A(1) / (A(1) + std::exp(logits[1] - logits[0]))),
        b(A(1) / (A(1) + std::exp(logits[0] - logits[1]))) {}
  A a, b;
};

}  // namespace

template <Device D, class T>
void mix_forward(const MixArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "mix_forward");
  using A = Accum<T>;
  parallel_for_blocks(g.rows, kRows, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Coefficients<A> c(g.logits + 2 * i);
      const T *a = g.a + i * g.cols, *b = g.b + i * g.cols;
      T* y = g.y + i * g.cols;
      for (int64_t j = 0; j < g.cols; ++j) y[j] = T(c.a * A(a[j]) + c.b * A(b[j]));
    }
  });
}

// da = c0 dy, db = c1 dy, dlogits_0 = c0 c1 (dy . a - dy . b) = -dlogits_1
template <Device D, class T>
void mix_backward(const MixGradArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "mix_backward");
  using A = Accum<T>;
  parallel_for_blocks(g.rows, kRows, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Coefficients<A> c(g.logits + 2 * i);
      const T* dy = g.dy + i * g.cols;
      if (g.da != nullptr) write_scaled(dy, c.a, g.da + i * g.cols, g.accumulate_da, g.cols);
      if (g.db != nullptr) write_scaled(dy, c.b, g.db + i * g.cols, g.accumulate_db, g.cols);
      if (g.dlogits != nullptr) {
        const T *a = g.a + i * g.cols, *b = g.b + i * g.cols;
        const A dot = sum_of<A>(g.cols, [=](int64_t j) { return A(dy[j]) * (A(a[j]) - A(b[j])); });
        const A d = c.a * c.b * dot;
        A* out = g.dlogits + 2 * i;
        out[0] = g.accumulate_dlogits ? out[0] + d : d;
        out[1] = g.accumulate_dlogits ? out[1] - d : -d;
      }
    }
  });
}

template void mix_forward<Device::cpu>(const MixArgs<float>&, Stream&);
template void mix_forward<Device::cpu>(const MixArgs<bf16>&, Stream&);
template void mix_forward<Device::cpu>(const MixArgs<double>&, Stream&);
template void mix_backward<Device::cpu>(const MixGradArgs<float>&, Stream&);
template void mix_backward<Device::cpu>(const MixGradArgs<bf16>&, Stream&);
template void mix_backward<Device::cpu>(const MixGradArgs<double>&, Stream&);

}  // namespace ziggurat::kernels
