#include <kernels/linear_backward.h>

#include <ziggurat/kernels/linear.h>
#include <ziggurat/kernels/weight_copies.h>

namespace ziggurat::kernels {

namespace {

template <class T>
PackedWeights* copies(const LinearArgs<T>& g, Stream& stream) {
  return weight_copies(WeightRole::shared, g.weight, g.version, g.out, g.out, g.in, stream);
}

}  // namespace

template <Device D, class T>
void linear_forward(const LinearArgs<T>& g, Arena& workspace, Stream& stream) {
  weight_product<D>(
      WeightProduct<T, T>{Side::forward, g.rows, g.out, g.in, g.x, g.weight, copies(g, stream), 0, g.z},
      workspace, stream);
  if (g.bias != nullptr || g.activation != Activation::none) {
    bias_activation_forward<D>(BiasActivationArgs<T>{g.activation, g.rows, g.out, g.z, g.bias, g.y}, stream);
  }
}

template <Device D, class T>
void linear_backward(const LinearGradArgs<T>& g, Arena& workspace, Stream& stream) {
  linear_backward_of_products<D>(g, copies(g.forward, stream), workspace, stream);
}

template void linear_forward<Device::cpu>(const LinearArgs<float>&, Arena&, Stream&);
template void linear_forward<Device::cpu>(const LinearArgs<bf16>&, Arena&, Stream&);
template void linear_forward<Device::cpu>(const LinearArgs<double>&, Arena&, Stream&);
template void linear_backward<Device::cpu>(const LinearGradArgs<float>&, Arena&, Stream&);
template void linear_backward<Device::cpu>(const LinearGradArgs<bf16>&, Arena&, Stream&);
template void linear_backward<Device::cpu>(const LinearGradArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
