// The kernels as they are measured, beside what each cannot do without: times on the CPU and on a GPU; on the
// emulated device of the tests the bytes that CUDA's move.
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
  double bytes;  // of operands and results, each moved once
};

struct KernelCase {
  std::string name, shape;
  DType dtype;
  Floor floor;
  std::function<std::function<void()>(Lab&)> prepare;  // operands of its own; the result is one call
};

const char* to_string(Floor::Kind kind);

// `timed`: at the shapes of a step. `counted`: at small ones, on Device::cuda only.
enum class CaseSize { timed, counted };

// On Device::cpu or cuda, those with `filter`, a regular expression, in NAME/DTYPE. Throws Error(argument)
// where it is none or found nowhere.
std::vector<KernelCase> kernel_cases(Device device, CaseSize size = CaseSize::timed,
                                     const std::string& filter = "");

}  // namespace ziggurat::apps
