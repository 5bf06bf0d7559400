// The norm of all gradients, and by how much it is too long.
#pragma once

#include <cstdint>
#include <limits>

#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct ClipKernels : OnCpu {
  static constexpr const char* kName = "clip";
  using Cpu = Dtypes<double>;
  using Cuda = Dtypes<double>;
};

//   norm = sqrt(sum of squares)    scale = min(1, max_norm / norm)
// exactly (Pascanu et al. 2013, arXiv 1211.5063, algorithm 1). The scale is not finite when the norm or a
// loss is not, or is beyond its limit: AdamW then updates nothing.
struct ClipArgs {
  int64_t n = 0;
  const double* squares = nullptr;  // [n] of parts of the parameters, each parameter once
  double max_norm = 0;              // 0: no clipping
  int64_t losses = 0;
  const double* loss = nullptr;  // [losses], in groups of `parts`
  double* clipped = nullptr;     // [2] norm, scale
  double most_norm = std::numeric_limits<double>::infinity();
  double most_loss = std::numeric_limits<double>::infinity();  // of the first losses of all groups
  int64_t parts = 1;
};

// All in memory of the device. Same bits for the same squares: in their order on the CPU, on CUDA in a tree
// that depends on n alone.
template <Device D>
void clip(const ClipArgs& args, Stream& stream);

}  // namespace ziggurat::kernels
