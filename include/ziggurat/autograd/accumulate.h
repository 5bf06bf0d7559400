#pragma once

#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

// y += x, of the same floating dtype, device and numel, in the order of the stream.
void accumulate(const Tensor& x, const Tensor& y, Stream& stream);

}  // namespace ziggurat
