// Memory of the device with values of a test in it.
#pragma once

#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "tests/emulation/accesses.h"

namespace ziggurat::emulation {

// Tests have no cure for an error of the runtime: it ends them.
inline void expect_success(cudaError_t error) {
  if (error != cudaSuccess) throw KernelError(cudaGetErrorString(error));
}

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t size) : size_(size) { expect_success(cudaMalloc(&data_, bytes())); }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { put(values); }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  size_t size() const { return size_; }
  // After all work that the host has queued.
  void put(const std::vector<T>& values) {
    expect_success(cudaDeviceSynchronize());
    expect_success(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice));
  }
  std::vector<T> get() const {
    std::vector<T> values(size_);
    expect_success(cudaDeviceSynchronize());
    expect_success(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  size_t bytes() const { return size_ * sizeof(T); }
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ziggurat::emulation
