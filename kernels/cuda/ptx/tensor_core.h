// What CUDA C++ has no functions for: the tensor cores' instructions whose registers have a known layout.
// Only device/mma.h calls them. The emulated device has a file of this name with its own.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

namespace ziggurat::ptx {

// d [16, 8] += a [16, 16] b [16, 8]: bf16, exact products, summed in f32.
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of 16-bit numbers from shared memory. Lane l says where row l % 8 of matrix l / 8 is,
// 16 bytes at a multiple of 16, and gets of matrix i in to[i] the numbers 2 (l % 4) and the next of row l
// / 4.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row))));
}
// The same of the transposed matrices: numbers of column l / 4, of row 2 (l % 4) and the next.
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row))));
}

}  // namespace ziggurat::ptx
