#pragma once

#include <vector>

#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

// A few numbers, f64, of any device on the host, which waits for the stream. HostPieces is for many.
std::vector<double> host_values(const Tensor& tensor, Stream& stream);

}  // namespace ziggurat
