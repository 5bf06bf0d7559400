// The speed of light of a GPU: what its products, its memory and its starting of kernels reach when nothing
// else is in the way, as training uses them. The CPU's: bench/roof.h.
#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/runtime/device_timer.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat::bench {

struct DeviceRoofs {
  struct Product {  // of matrices [size, size], summed in f32, results in the operands' type
    DType dtype;
    int64_t size;
    double flops_per_second;
  };
  std::vector<Product> products;
  double copy = 0, read = 0;  // bytes/s; a copy's are those read and those written
  double kernel = 0;          // seconds of a kernel that does nothing, one after the other
  double start = 0;           // seconds of the host for starting one
  double round_trip = 0;      // seconds from starting one to knowing that it is done
  double recorded = 0;        // bytes of the device that CUDA keeps for a kernel in a recorded graph

  // Of its products the fastest.
  double flops_per_second(DType dtype) const;
};

// What is measured. Memory on the device: 16 bytes for each element of the largest product, then two of
// `bytes`.
struct DeviceRoofSizes {
  std::vector<int64_t> products = {1024, 2048, 4096, 8192};
  int64_t bytes = int64_t{1} << 30;  // far beyond the caches
  int kernels = 1000;
  int recorded = 1 << 16;  // so many that what CUDA takes at a time hardly counts
  Repetitions repetitions;
};

// Of the calling thread's device. Throws Error(device) where the build has no CUDA or the device too little
// memory.
DeviceRoofs measure_device_roofs(const DeviceRoofSizes& sizes = {});

}  // namespace ziggurat::bench
