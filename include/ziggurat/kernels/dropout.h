// Inverted dropout (Srivastava et al. 2014): element i is kept where uniform(i) >= rate and then divided by
// 1 - rate. The mask is a function of the random stream's name and of i, in the whole array, so backward
// computes it again. Dropping multiplies by 0: an infinity or NaN in x shows in y either way. Floor: memory,
// 1 read and 1 write of n elements; ten rounds of Philox per four elements.
#pragma once

#include <cstdint>

#include <ziggurat/core/philox.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct DropoutKernels : OnCpu {
  static constexpr const char* kName = "dropout";
  using Cuda = Dtypes<float, bf16>;
};

template <class T>
struct DropoutArgs {
  int64_t n = 0;
  double rate = 0;  // in [0, 1)
  LatePhilox rng;
  const T* x = nullptr;  // [n]
  // [n] y = offset + dropout(x), with dropout(x) rounded to T before the sum; null: y = dropout(x).
  const T* offset = nullptr;
  T* y = nullptr;     // [n]; may alias x or offset
  int64_t first = 0;  // of who has a part of an array: the element that x[0] is, a multiple of 4
};

// Its own derivative: dx = dropout(dy), and dx += dropout(dy) with offset = y = dx.
template <Device D, class T>
void dropout(const DropoutArgs<T>& args, Stream& stream);

}  // namespace ziggurat::kernels
