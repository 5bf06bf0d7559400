#include <ziggurat/tensor/host_values.h>

namespace ziggurat {

std::vector<double> host_values(const Tensor& tensor, Stream& stream) {
  std::vector<double> values(static_cast<size_t>(tensor.numel()));
  copy(tensor, Tensor(values.data(), DType::f64, tensor.shape()), stream);
  stream.wait();
  return values;
}

}  // namespace ziggurat
