#include <algorithm>
#include <numbers>

#include <kernels/cpu/row_sums.h>
#include <kernels/cpu/vector_math.h>

#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kRows = 32;  // rows of a block, also of a partial column sum

// Columns that take their bias, a stream from memory, and then their activation, all arithmetic: so few that
// the memory works on while the arithmetic is done. One loop over both does not vectorise for bf16.
constexpr int64_t kCols = 128;

// gelu(z) = z/2 (1 + tanh(u)) = z s, s = sigmoid(2u), u = sqrt(2/pi) (z + 0.044715 z^3)
//                                                               (Hendrycks and Gimpel 2016, tanh form)
struct GeluTanh {
  static constexpr double kTwo = 2 * 0.7978845608028654;  // 2 sqrt(2/pi)
  template <class A>
  static A s(A z) {
    return sigmoid(z * (A(kTwo) + A(kTwo * 0.044715) * z * z));
  }
  template <class A>
  static A value(A z) {
    return z * s(z);
  }
  // gelu'(z) = s + z s (1 - s) 2u'
  template <class A>
  static A derivative(A z) {
    const A sz = s(z);
    return sz + z * sz * (A(1) - sz) * (A(kTwo) + A(3 * kTwo * 0.044715) * z * z);
  }
};

// gelu(z) = z Phi(z), gelu'(z) = Phi(z) + z phi(z)
struct GeluErf {
  template <class A>
  static A value(A z) {
    return A(0.5) * z * (A(1) + std::erf(z * A(std::numbers::sqrt2 / 2)));
  }
  template <class A>
  static A derivative(A z) {
    const A cdf = A(0.5) * (A(1) + std::erf(z * A(std::numbers::sqrt2 / 2)));
    return cdf + z * A(0.3989422804014327) * std::exp(A(-0.5) * z * z);
  }
};

template <class F>
void visit_activation(Activation activation, const F& f) {
  if (activation == Activation::gelu_tanh) f(GeluTanh{});
  if (activation == Activation::gelu_erf) f(GeluErf{});
}

}  // namespace

template <Device D, class T>
void bias_activation_forward(const BiasActivationArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "bias_activation_forward");
  using A = Accum<T>;
  parallel_for_blocks(g.rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t column = 0; column < g.cols; column += kCols) {
        const int64_t n = std::min(kCols, g.cols - column);
        T* z = g.z + i * g.cols + column;
        if (g.bias != nullptr) {
          const A* bias = g.bias + column;
          for (int64_t j = 0; j < n; ++j) z[j] = T(A(z[j]) + bias[j]);
        }
        visit_activation(g.activation, [&]<class Gelu>(Gelu) {
          T* y = g.y + i * g.cols + column;
          for (int64_t j = 0; j < n; ++j) y[j] = T(Gelu::template value<A>(A(z[j])));
        });
      }
    }
  });
}

template <Device D, class T>
void bias_activation_backward(const BiasActivationGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "bias_activation_backward");
  using A = Accum<T>;
  const int64_t blocks = (g.rows + kRows - 1) / kRows;
  const ArenaScope scope(workspace);
  A* partial = nullptr;  // [blocks, cols] column sums of each block
  if (g.dbias != nullptr) {
    partial = workspace.take_on_device<A>(blocks * g.cols);
  }
  parallel_for_blocks(g.rows, kRows, [&](int64_t begin, int64_t end) {
    A* sum = partial == nullptr ? nullptr : partial + begin / kRows * g.cols;
    if (sum != nullptr) std::fill(sum, sum + g.cols, A(0));
    for (int64_t i = begin; i < end; ++i) {
      const T* dy = g.dy + i * g.cols;
      const T* dz = dy;
      visit_activation(g.activation, [&]<class Gelu>(Gelu) {
        const T* z = g.z + i * g.cols;
        T* out = g.dz + i * g.cols;
        for (int64_t j = 0; j < g.cols; ++j) out[j] = T(A(dy[j]) * Gelu::template derivative<A>(A(z[j])));
        dz = out;
      });
      if (sum != nullptr) {
        for (int64_t j = 0; j < g.cols; ++j) sum[j] += A(dz[j]);
      }
    }
  });
  if (partial != nullptr) add_partial_sums(partial, blocks, g.cols, g.dbias);
}

template void bias_activation_forward<Device::cpu>(const BiasActivationArgs<float>&, Stream&);
template void bias_activation_forward<Device::cpu>(const BiasActivationArgs<bf16>&, Stream&);
template void bias_activation_forward<Device::cpu>(const BiasActivationArgs<double>&, Stream&);
template void bias_activation_backward<Device::cpu>(const BiasActivationGradArgs<float>&, Arena&, Stream&);
template void bias_activation_backward<Device::cpu>(const BiasActivationGradArgs<bf16>&, Arena&, Stream&);
template void bias_activation_backward<Device::cpu>(const BiasActivationGradArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
