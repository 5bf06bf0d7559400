// Weights [count, out, in] of 8 bits each and a scale for each row, in panels (kernels/panel_linear.h).
#pragma once

#include <cstdint>

#include <ziggurat/memory/arena.h>

namespace ziggurat::kernels {

// weight = scale of its row * number, |number| <= 127. Numbers of a panel lie column by column, in any dtype
// of x. Null: there are none.
struct Int8Weights {
  const int8_t* numbers = nullptr;  // [count, out, in] in panels
  const float* scales = nullptr;    // [count, out]
  explicit operator bool() const { return numbers != nullptr; }

  // One piece of memory for both: bytes, where the scales begin, and the weights that lie there.
  static int64_t bytes(int64_t rows, int64_t in) {
    return scales_at(rows * in) + rows * int64_t{sizeof(float)};
  }
  static int64_t scales_at(int64_t numbers) {
    return (numbers + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
  }
  static Int8Weights at(const void* memory, int64_t rows, int64_t in) {
    const auto* numbers = static_cast<const int8_t*>(memory);
    return {numbers, reinterpret_cast<const float*>(numbers + scales_at(rows * in))};
  }
};

}  // namespace ziggurat::kernels
