// What a device is measured by, beside products of its library: kernels that do nothing, or only read.
#pragma once

#include <cstdint>

#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct DeviceRoofKernels {
  static constexpr const char* kName = "device_roof";
  using Cpu = Dtypes<>;  // measures itself in bench/roof.h
  using Cuda = Dtypes<float>;
};

// One kernel of one block that returns at once.
template <Device D>
void do_nothing(Stream& stream);

// Floor: 4 n bytes. x lies at a multiple of 16 bytes.
constexpr int64_t kReadSums = 2048;
template <Device D>
void read_all(const float* x, int64_t n, float* sums,
              Stream& stream);  // sums [kReadSums], which add up to x's

}  // namespace ziggurat::kernels
