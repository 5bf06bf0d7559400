// Rotary position embedding of the q and k heads of a qkv matrix (Su et al. 2021, RoFormer, equation 34),
// in the half-split form of Llama: with c = cos(t f_j), s = sin(t f_j), f_j = theta^(-2j / d), position t and
// j < d/2,
//   y_j = x_j c - x_{j + d/2} s,   y_{j + d/2} = x_{j + d/2} c + x_j s;   v is copied.
// The inverse rotates by -t f_j; it is also the backward, a rotation's transpose being its inverse.
// Floor: memory, one read and one write of qkv.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/attention_shape.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct RopeKernels : OnCpu {
  static constexpr const char* kName = "rope";
  using Cuda = Dtypes<float, bf16>;
};

template <class T>
struct RopeArgs {
  AttentionShape shape;  // head_dim even
  double theta = 10000;
  bool inverse = false;
  const int32_t* positions = nullptr;  // [B T] in [0, T), not checked here; null: 0 .. T-1, B times
  const T* x = nullptr;                // [B T, width]
  T* y = nullptr;                      // [B T, width], not x
  bool accumulate = false;             // y += instead of =
};

template <Device D, class T>
void rope(const RopeArgs<T>& args, Arena& workspace, Stream& stream);

// cosine, sine [positions, head_dim / 2]: c and s of the formula above. Instantiated for float and double.
template <Device D, class A>
void rotation_tables(double theta, int64_t head_dim, int64_t positions, bool inverse, A* cosine, A* sine);

// The same for `rows` rows at these positions, [rows, head_dim / 2] each, with the same bits.
template <Device D, class A>
void rotation_rows(double theta, int64_t head_dim, const int32_t* positions, int64_t rows, A* cosine, A* sine,
                   Stream& stream);

}  // namespace ziggurat::kernels
