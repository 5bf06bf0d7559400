// The exponential average of weights after an update: average += (1 - d) (weight - average), with
// d = min(decay, 1 - 1 / step), so that it is the plain mean of the first 1 / (1 - decay) updates and owes
// nothing to where it started. Nothing where the update's gradient scale was not finite, as then there was
// none. Floor: memory, 2 reads and 1 write of n elements.
#pragma once

#include <cstdint>

#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct WeightAverageKernels : OnCpu {
  static constexpr const char* kName = "weight_average";
  using Cuda = Dtypes<float>;
};

template <class T>
struct WeightAverageArgs {
  int64_t n = 0;
  const T* weight = nullptr;           // [n] after the update
  T* average = nullptr;                // [n]
  double decay = 0;                    // in (0, 1)
  int64_t step = 1;                    // updates so far, this one included
  const double* grad_scale = nullptr;  // [1]
};

template <Device D, class T>
void weight_average(const WeightAverageArgs<T>& args, Stream& stream);

}  // namespace ziggurat::kernels
