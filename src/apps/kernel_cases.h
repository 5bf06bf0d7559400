// The CPU kernels as they are measured: each at the shapes of configs/bench, beside what it cannot do
// without.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include <ziggurat/core/philox.h>
#include <ziggurat/kernels/grouped_linear.h>
#include <ziggurat/kernels/packed_weights.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat::apps {

// What a kernel works on, and with. Memory lives as long as the lab.
class Lab {
 public:
  template <class T>
  T* values(int64_t n) {  // small positive numbers, none of them a denormal
    auto* x = static_cast<T*>(data_.allocate(n * int64_t{sizeof(T)}));
    for (int64_t i = 0; i < n; ++i) x[i] = T(0.001f * static_cast<float>(1 + i % 19));
    return x;
  }
  int32_t* scattered(int64_t n, int64_t limit);  // in [0, limit); n = limit, a power of 2: each once
  kernels::Segment* equal_shares(int64_t n, int64_t experts);  // of n rows
  // Copies of a weight [count, out, in] made of `values`; null where this CPU has no packed products.
  kernels::PackedWeights* packed(const Tensor& weight, int64_t count, int64_t out, int64_t in);

  int64_t bytes() const { return data_.used(); }
  Arena& workspace() { return workspace_; }
  Stream& stream() { return stream_; }

 private:
  static constexpr int64_t kAddresses = int64_t{1} << 40;  // reserved; backed when touched
  Arena data_{"kernel operands", kAddresses}, workspace_{"kernel workspace", kAddresses};
  Stream stream_;
  std::deque<kernels::PackedWeights> packed_;
};

struct Floor {
  enum class Kind {
    products,  // FLOPs / the roof of matrix products of the dtype
    traffic,   // bytes read and written / the bandwidth of y += x
    reads      // bytes / the bandwidth of only reading
  };
  Kind kind;
  double amount;
};

struct KernelCase {
  std::string name, shape;
  DType dtype;
  Floor floor;
  std::function<std::function<void()>(Lab&)> prepare;  // operands of its own; the result is one call
};

std::vector<KernelCase> kernel_cases();

}  // namespace ziggurat::apps
