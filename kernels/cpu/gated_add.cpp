#include <kernels/cpu/row_sums.h>
#include <kernels/cpu/scaled_row.h>
#include <kernels/cpu/vector_math.h>

#include <ziggurat/kernels/gated_add.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kRows = 32;  // rows of a block

}  // namespace

template <Device D, class T>
void gated_add_forward(const GatedAddArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "gated_add_forward");
  using A = Accum<T>;
  parallel_for_blocks(g.rows, kRows, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const A s = sigmoid(g.logits[i]);
      const T *a = g.a + i * g.cols, *b = g.b + i * g.cols;
      T* y = g.y + i * g.cols;
      for (int64_t j = 0; j < g.cols; ++j) y[j] = T(A(a[j]) + s * A(b[j]));
    }
  });
}

// db = s dy, dlogit = s (1 - s) dy . b
template <Device D, class T>
void gated_add_backward(const GatedAddGradArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "gated_add_backward");
  using A = Accum<T>;
  parallel_for_blocks(g.rows, kRows, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const A s = sigmoid(g.logits[i]), rest = sigmoid(-g.logits[i]);  // of its own: tiny values stay exact
      const T* dy = g.dy + i * g.cols;
      if (g.db != nullptr) write_scaled(dy, s, g.db + i * g.cols, g.accumulate_db, g.cols);
      if (g.dlogits != nullptr) {
        const T* b = g.b + i * g.cols;
        const A d = s * rest * sum_of<A>(g.cols, [=](int64_t j) { return A(dy[j]) * A(b[j]); });
        g.dlogits[i] = g.accumulate_dlogits ? g.dlogits[i] + d : d;
      }
    }
  });
}

template void gated_add_forward<Device::cpu>(const GatedAddArgs<float>&, Stream&);
template void gated_add_forward<Device::cpu>(const GatedAddArgs<bf16>&, Stream&);
template void gated_add_forward<Device::cpu>(const GatedAddArgs<double>&, Stream&);
template void gated_add_backward<Device::cpu>(const GatedAddGradArgs<float>&, Stream&);
template void gated_add_backward<Device::cpu>(const GatedAddGradArgs<bf16>&, Stream&);
template void gated_add_backward<Device::cpu>(const GatedAddGradArgs<double>&, Stream&);

}  // namespace ziggurat::kernels
