// The copies of weights (kernels/packed_weights.h) that a stream of the CPU keeps: by the weight's address,
// made when products first ask for them, and anew when the weight has another version (Param::version).
// Kernels look them up by themselves; nobody else knows of them but for their bytes, Stream::cache_bytes().
#pragma once

#include <cstdint>

#include <ziggurat/kernels/packed_weights.h>
#include <ziggurat/runtime/device.h>

namespace ziggurat::kernels {

enum class WeightRole {
  shared,  // trained; all rows of a pass are multiplied with each of its matrices
  expert,  // trained; each matrix has rows of its own
  frozen,  // read only, forward
};

// For `weight` [total, in], in matrices of `rows` rows. Null where copies don't pay for as many rows as the
// stream knows of (Stream::weight_rows), the library has no products with them, or the version is 0; in
// training on a strict stream, and on any device but the CPU. A weight is asked for in one way only.
template <class T>
PackedWeights* weight_copies(WeightRole role, const T* weight, uint64_t version, int64_t total, int64_t rows,
                             int64_t in, Stream& stream);

}  // namespace ziggurat::kernels
