// Normal random numbers, y[i] = scale * Philox::normal(first + i): what parameters start with.
// The logarithm and the cosine are own polynomials in double (error below 2^-50 of the result's scale), so
// that the loop runs on vectors: a rounding to f32 differs from the C library's once in about 2^25 values.
// Floor: compute, ten rounds of Philox and one logarithm, root and sine-cosine pair per two elements.
#pragma once

#include <cstdint>

#include <ziggurat/core/philox.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct RandomNormalKernels : OnCpu {
  static constexpr const char* kName = "random_normal";
};

template <class T>
struct RandomNormalArgs {
  Philox rng{0, Purpose::test};
  uint64_t first = 0;  // the stream's element at y[0]
  double scale = 1;    // standard deviation
  T* y = nullptr;      // [n]
  int64_t n = 0;
};

template <Device D, class T>
void random_normal(const RandomNormalArgs<T>& args, Stream& stream);

}  // namespace ziggurat::kernels
