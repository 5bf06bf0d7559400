// The shared memory whose size a launch says. One declaration for all kernels: they would else each need a
// name.
#pragma once

#include <cuda_runtime.h>

namespace ziggurat::kernels {

extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[];

template <class T>
__device__ T* dynamic_shared() {
  return reinterpret_cast<T*>(dynamic_shared_bytes);
}

}  // namespace ziggurat::kernels
