// Forward: bias and gelu (its tanh form) are the product's epilogue where the library has them; what it has
// not is bias_activation's.
#include <kernels/cuda/lib/matmul.h>
#include <kernels/linear_backward.h>

#include <ziggurat/kernels/linear.h>

namespace ziggurat::kernels {

namespace {

// Returns what is left to do, or of everything if the library has no product with such an epilogue.
template <class T>
BiasActivationArgs<T> multiply_with_epilogue(const LinearArgs<T>& g, Arena& workspace, Stream& stream) {
  BiasActivationArgs<T> left{g.activation, g.rows, g.out, g.z, g.bias, g.y};
  const bool gelu = g.activation == Activation::gelu_tanh;
  const bool has_terms = g.rows > 0 && g.in > 0 && g.out > 0;
  // A strict product is cut into tiles, of which the epilogue is another pass anyway.
  if (has_terms && (g.bias != nullptr || gelu) && !stream.strict()) {
    const Span span(stream.profile(), "gemm");
    const GemmArgs<T, T> product{false,    true, g.rows,           g.out, g.in, g.x, g.in,
                                 g.weight, g.in, gelu ? g.y : g.z, g.out, false};
    if (multiply(product, Epilogue<T>{g.bias, gelu ? g.z : nullptr}, workspace, stream)) {
      left.bias = nullptr;
      if (gelu) left.activation = Activation::none;
      return left;
    }
  }
  weight_product<Device::cuda>(
      WeightProduct<T, T>{Side::forward, g.rows, g.out, g.in, g.x, g.weight, nullptr, 0, g.z}, workspace,
      stream);
  return left;
}

}  // namespace

template <Device D, class T>
void linear_forward(const LinearArgs<T>& g, Arena& workspace, Stream& stream) {
  bias_activation_forward<D>(multiply_with_epilogue(g, workspace, stream), stream);
}

template <Device D, class T>
void linear_backward(const LinearGradArgs<T>& g, Arena& workspace, Stream& stream) {
  linear_backward_of_products<D>(g, nullptr, workspace, stream);
}

template void linear_forward<Device::cuda>(const LinearArgs<float>&, Arena&, Stream&);
template void linear_forward<Device::cuda>(const LinearArgs<bf16>&, Arena&, Stream&);
template void linear_backward<Device::cuda>(const LinearGradArgs<float>&, Arena&, Stream&);
template void linear_backward<Device::cuda>(const LinearGradArgs<bf16>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
