// Hashes of tensors' bits, to compare what must be the same.
#pragma once

#include <cstdint>

#include <ziggurat/tensor/host_pieces.h>

namespace ziggurat::train {

class BitHash {
 public:
  // The same for the same bits, on whatever device. Work that writes the tensor must be done.
  uint64_t of(const Tensor& tensor);

 private:
  HostPieces pieces_;
};

}  // namespace ziggurat::train
