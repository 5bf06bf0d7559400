// Stands for kernels/cuda/ptx/tensor_core.h, which says what they do. Lanes meet in one exchange, each with
// the address of its registers.
#pragma once

#include <cuda_runtime.h>

namespace ziggurat::emulation {

struct MmaOperands {
  const uint32_t* a;
  const uint32_t* b;
};
uint64_t mma(const uint64_t* operands, uint32_t mask, int lane, uint64_t d);
uint64_t spread_rows(const uint64_t* rows, uint32_t mask, int lane, uint64_t to);
uint64_t spread_columns(const uint64_t* rows, uint32_t mask, int lane, uint64_t to);

inline uint64_t address_of(const void* object) { return reinterpret_cast<uintptr_t>(object); }

}  // namespace ziggurat::emulation

namespace ziggurat::ptx {

inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], ZIGGURAT_SITE) {
  using namespace emulation;
  const MmaOperands operands{a, b};
  warp_exchange(~0u, mma, address_of(&operands), address_of(d), "mma", {file, line});
}

inline void ldmatrix_x4(uint32_t (&to)[4], const void* row, ZIGGURAT_SITE) {
  using namespace emulation;
  const uint4 mine = *static_cast<const uint4*>(row);
  warp_exchange(~0u, spread_rows, address_of(&mine), address_of(to), "ldmatrix", {file, line});
}
inline void ldmatrix_x4_transposed(uint32_t (&to)[4], const void* row, ZIGGURAT_SITE) {
  using namespace emulation;
  const uint4 mine = *static_cast<const uint4*>(row);
  warp_exchange(~0u, spread_columns, address_of(&mine), address_of(to), "ldmatrix.trans", {file, line});
}

}  // namespace ziggurat::ptx
