// Where one gradient of an expert lies, and its rows: of one source, or of all (kernels/grouped_linear.h).
#pragma once

#include <cuda_runtime.h>

#include <ziggurat/kernels/row_groups.h>

namespace ziggurat::kernels {

struct GradientRows {
  int64_t offset, begin, end;
};
__device__ __forceinline__ GradientRows gradient_rows(const RowGroups& groups, int64_t index, int64_t size,
                                                      int64_t stride) {
  const int64_t sources = groups.sources;
  if (stride == 0)
    return {index * size, groups.offsets[index * sources], groups.offsets[(index + 1) * sources]};
  return {index / sources * size + index % sources * stride, groups.offsets[index],
          groups.offsets[index + 1]};
}
constexpr int64_t gradients(const RowGroups& groups, int64_t stride) {
  return stride == 0 ? groups.experts : groups.count();
}

}  // namespace ziggurat::kernels
