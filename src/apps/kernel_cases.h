// The CPU kernels as they are measured: each at the shapes of configs/bench, beside what it cannot do
// without.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <ziggurat/tensor/tensor.h>

namespace ziggurat::apps {

class Lab;  // what a kernel works on, and with

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
