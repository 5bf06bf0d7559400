// For the emulator's own tests: kernels started without the launch.h of kernels/cuda, and the errors that
// they must be.
#pragma once

#include <functional>
#include <string>

#include <gmock/gmock.h>

#include "tests/emulation/emulated_test.h"

namespace ziggurat::emulation {

template <class... Parameters, class... Arguments>
cudaError_t start(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                  Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

// The kernel fails with each of these words in its message; the device is new afterwards.
template <class... Parameters, class... Arguments>
void expect_fault(const std::vector<std::string>& words, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                  size_t shared, Arguments... arguments) {
  ASSERT_EQ(start(kernel, grid, block, shared, nullptr, arguments...), cudaSuccess);
  const cudaError_t error = cudaDeviceSynchronize();
  EXPECT_EQ(error, cudaErrorLaunchFailure);
  for (const std::string& word : words) EXPECT_THAT(cudaGetErrorString(error), testing::HasSubstr(word));
  reset(default_seed());
}

// Memory that reset() frees: for kernels that fail.
template <class T>
T* leaked(size_t n) {
  T* pointer = nullptr;
  expect_success(cudaMalloc(&pointer, n * sizeof(T)));
  return pointer;
}

}  // namespace ziggurat::emulation
