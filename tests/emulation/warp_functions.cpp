// Not in the header, so that every kernel's use of one is the same function (which is how lanes find each
// other).
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <ptx/tensor_core.h>

#include "tests/emulation/accesses.h"

namespace ziggurat::emulation {

uint64_t shuffle(const uint64_t* values, uint32_t mask, int lane, uint64_t source) {
  if ((mask >> source & 1u) == 0) {
    throw KernelError("a shuffle: lane " + std::to_string(lane) + " reads lane " + std::to_string(source) +
                      ", which takes no part in it");
  }
  return values[source];
}

uint64_t ballot(const uint64_t* values, uint32_t, int, uint64_t) {
  uint64_t bits = 0;
  for (int lane = 0; lane < 32; ++lane) bits |= values[lane] << lane;
  return bits;
}

uint64_t match_any(const uint64_t* values, uint32_t mask, int lane, uint64_t) {
  uint64_t bits = 0;
  for (int other = 0; other < 32; ++other) {
    if ((mask >> other & 1u) != 0 && values[other] == values[lane]) bits |= uint64_t{1} << other;
  }
  return bits;
}

namespace {

void need_whole_warp(uint32_t mask) {
  if (mask != ~0u) throw KernelError("a tensor core's instruction needs a warp of 32 threads");
}

template <class T>
const T* pointer(uint64_t address) {
  return reinterpret_cast<const T*>(address);
}

float number(uint32_t word, int half) { return __uint_as_float(half == 0 ? word << 16 : word & 0xffff0000u); }
uint16_t half_of(const uint4& row, int at) {
  const uint32_t words[4] = {row.x, row.y, row.z, row.w};
  return static_cast<uint16_t>(words[at / 2] >> (at % 2 * 16));
}

}  // namespace

// Where row and column of an operand lie: PTX ISA, "Matrix fragments for mma.m16n8k16".
uint64_t mma(const uint64_t* operands, uint32_t mask, int lane, uint64_t d) {
  need_whole_warp(mask);
  auto* const result = reinterpret_cast<float*>(d);
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      const uint32_t a = pointer<MmaOperands>(operands[row * 4 + k % 8 / 2])->a[i / 2 + k / 8 * 2];
      const uint32_t b = pointer<MmaOperands>(operands[column * 4 + k % 8 / 2])->b[k / 8];
      result[i] += number(a, k % 2) * number(b, k % 2);
    }
  }
  return 0;
}

uint64_t spread_rows(const uint64_t* rows, uint32_t mask, int lane, uint64_t to) {
  need_whole_warp(mask);
  for (int i = 0; i < 4; ++i) {
    const uint4& row = *pointer<uint4>(rows[8 * i + lane / 4]);
    reinterpret_cast<uint32_t*>(to)[i] =
        half_of(row, lane % 4 * 2) | static_cast<uint32_t>(half_of(row, lane % 4 * 2 + 1)) << 16;
  }
  return 0;
}

uint64_t spread_columns(const uint64_t* rows, uint32_t mask, int lane, uint64_t to) {
  need_whole_warp(mask);
  for (int i = 0; i < 4; ++i) {
    const int first = 8 * i + lane % 4 * 2;
    reinterpret_cast<uint32_t*>(to)[i] =
        half_of(*pointer<uint4>(rows[first]), lane / 4) |
        static_cast<uint32_t>(half_of(*pointer<uint4>(rows[first + 1]), lane / 4)) << 16;
  }
  return 0;
}

}  // namespace ziggurat::emulation
