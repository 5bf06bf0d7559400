// What kernels read of the micro-batch that they compute: it lies in their device's memory, for whatever is
// an argument of a kernel stays what it is when the kernel is queued again as it was (runtime/graph.h).
#pragma once

#include <cstdint>

#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct MicroBatchNumbersKernels : OnCpu {
  static constexpr const char* kName = "micro_batch_numbers";
  using Cuda = Dtypes<double>;
};

struct MicroBatchNumbers {
  uint64_t moment = 0;      // the last name of its random streams: see core/philox.h
  double token_weight = 1;  // d(loss of the step) / d(loss of one token)
  double loss_scale = 1;    // the same of a loss that is a mean over the step's micro-batches
};

// *to = numbers, in the order of the stream.
template <Device D>
void write_numbers(const MicroBatchNumbers& numbers, MicroBatchNumbers* to, Stream& stream);

}  // namespace ziggurat::kernels
