// The backward of a linear layer, of products that every device has.
#pragma once

#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/linear.h>
#include <ziggurat/kernels/packed_weights.h>

namespace ziggurat::kernels {

// `packed`: copies of the weight, or null.
template <Device D, class T>
void linear_backward_of_products(const LinearGradArgs<T>& g, PackedWeights* packed, Arena& workspace,
                                 Stream& stream) {
  const LinearArgs<T>& f = g.forward;
  const bool activated = f.activation != Activation::none;
  const ArenaScope scope(workspace);
  // dz = dy * activation'(z), dbias += sum over rows of dz
  T* const own_dz = activated ? workspace.take_on_device<T>(f.rows * f.out) : nullptr;
  const T* const dz = activated ? own_dz : g.dy;
  if (activated || g.dbias != nullptr) {
    bias_activation_backward<D>(
        BiasActivationGradArgs<T>{f.activation, f.rows, f.out, f.z, g.dy, own_dz, g.dbias}, workspace,
        stream);
  }
  // dweight += dz^T x
  if (g.dweight != nullptr) {
    gemm<D>(GemmArgs<T, Accum<T>>{true, false, f.out, f.in, f.rows, dz, f.out, f.x, f.in, g.dweight, f.in,
                                  g.accumulate_dweight},
            workspace, stream);
  }
  // dx = dz weight
  if (g.dx != nullptr) {
    weight_product<D>(WeightProduct<T, T>{Side::backward, f.rows, f.out, f.in, dz, f.weight, packed, 0, g.dx,
                                          g.accumulate_dx},
                      workspace, stream);
  }
}

}  // namespace ziggurat::kernels
