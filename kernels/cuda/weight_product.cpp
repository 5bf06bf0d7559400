#include <ziggurat/core/error.h>
#include <ziggurat/kernels/packed_weights.h>

namespace ziggurat::kernels {

template <Device D, class T, class TC>
void weight_product(const WeightProduct<T, TC>& g, Arena& workspace, Stream& stream) {
  check(g.packed == nullptr, ErrorKind::internal, "[weight_product] packed weights on {}", to_string(D));
  gemm<D>(without_copy(g), workspace, stream);
}

template void weight_product<Device::cuda>(const WeightProduct<float, float>&, Arena&, Stream&);
template void weight_product<Device::cuda>(const WeightProduct<bf16, bf16>&, Arena&, Stream&);
template void weight_product<Device::cuda>(const WeightProduct<bf16, float>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
