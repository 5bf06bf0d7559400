#include <kernels/linear_backward.h>

#include <ziggurat/kernels/linear.h>

namespace ziggurat::kernels {

template <Device D, class T>
void linear_forward(const LinearArgs<T>& g, Arena& workspace, Stream& stream) {
  weight_product<D>(WeightProduct<T, T>{Side::forward, g.rows, g.out, g.in, g.x, g.weight, g.packed, 0, g.z},
                    workspace, stream);
  if (g.bias != nullptr || g.activation != Activation::none) {
    bias_activation_forward<D>(BiasActivationArgs<T>{g.activation, g.rows, g.out, g.z, g.bias, g.y}, stream);
  }
}

template <Device D, class T>
void linear_backward(const LinearGradArgs<T>& g, Arena& workspace, Stream& stream) {
  linear_backward_of_products<D>(g, workspace, stream);
}

template void linear_forward<Device::cpu>(const LinearArgs<float>&, Arena&, Stream&);
template void linear_forward<Device::cpu>(const LinearArgs<bf16>&, Arena&, Stream&);
template void linear_forward<Device::cpu>(const LinearArgs<double>&, Arena&, Stream&);
template void linear_backward<Device::cpu>(const LinearGradArgs<float>&, Arena&, Stream&);
template void linear_backward<Device::cpu>(const LinearGradArgs<bf16>&, Arena&, Stream&);
template void linear_backward<Device::cpu>(const LinearGradArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
