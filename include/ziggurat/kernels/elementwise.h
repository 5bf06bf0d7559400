// Element-wise helpers shared by several ops. All arrays are contiguous.
#pragma once

#include <cstdint>

#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct ElementwiseKernels : OnCpu {
  static constexpr const char* kName = "elementwise";
  using Cuda = Dtypes<float, bf16>;
};

// y += x, n elements.
template <Device D, class T>
void accumulate(const T* x, T* y, int64_t n, Stream& stream);

// y = a + b, n elements; y may alias a or b.
template <Device D, class T>
void add(const T* a, const T* b, T* y, int64_t n, Stream& stream);

// y = a b, or y += a b; n elements.
template <Device D, class T>
void multiply(const T* a, const T* b, T* y, bool accumulate, int64_t n, Stream& stream);

// y = value, n elements.
template <Device D, class T>
void fill(T value, T* y, int64_t n, Stream& stream);

// y = From -> To conversion, n elements.
template <Device D, class From, class To>
void convert(const From* x, To* y, int64_t n, Stream& stream);

}  // namespace ziggurat::kernels
