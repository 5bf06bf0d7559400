// Attention, y_h = dropout(softmax(scale q_h k^T)) v per sequence and head; and its backward.
// B batch, T length, H heads, d head_dim.
// Floor: 2 B H T^2 d flop forward (two products, half of each below the diagonal), 5 B H T^2 d backward.
// Row i sees the keys first_key_i..last_key_i of its sequence: with packed documents those of its own, else
// from 0; up to i, or in a prefix that is seen whole to its end.
// Nothing of size T x T is kept: a block of query rows is scored against the keys from the first that one of
// them sees up to its last row, per thread. Softmax is computed in Accum<T>. Same bits on any number of
// threads: a key head and its query heads belong to one thread, which sums dk and dv over blocks in order; on
// Device::cuda a block of keys and all its queries belong to one block of threads.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/kernels/attention_shape.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct AttentionKernels : OnCpu {
  static constexpr const char* kName = "attention";
  using Cuda = Dtypes<float, bf16>;
};

// Of the kernels of Device::cuda, whose sums of a head lie in registers.
constexpr int64_t kAttentionMaxHeadDimOnCuda = 256;

// Query rows scored at once. Half a block above the diagonal is wasted, so small; but a product needs some
// rows to run near its peak.
constexpr int64_t kAttentionQueries = 64;

// Probability (b, h, i, j) is dropped where uniform(((b H + h) T + i) T + j) < probability, else divided by
// 1 - probability. Where ranks share the heads, H and h are those of all of them.
struct AttentionDropout {
  double probability = 0;  // in [0, 1)
  LatePhilox random;       // unless probability is 0
  int64_t heads = 0;       // H; 0: the shape's
  int64_t first_head = 0;  // h of the shape's first

  // b H + h of one of the shape's heads.
  constexpr int64_t place(const AttentionShape& s, int64_t b, int64_t head) const {
    return b * (heads > 0 ? heads : s.heads) + first_head + head;
  }
};

template <class T>
struct AttentionArgs {
  AttentionShape shape;
  double scale = 1;
  AttentionDropout dropout;
  const int32_t* first_key = nullptr;  // [B T], 0 <= first_key_i <= i, not checked here; null: all 0
  const T* qkv = nullptr;              // [B T, width]
  T* y = nullptr;                      // [B T, H d]
  Accum<T>* log_sum_exp = nullptr;     // [B, H, T] of the scaled scores
  const int32_t* last_key = nullptr;   // [B T], i <= last_key_i < T, not checked here; null: row i
  int64_t window = 0;                  // row i sees no key before i - window + 1; 0: there is none
};

template <Device D, class T>
void attention_forward(const AttentionArgs<T>& args, Arena& workspace, Stream& stream);

template <class T>
struct AttentionGradArgs {
  AttentionShape shape;
  double scale = 1;
  AttentionDropout dropout;               // as in forward
  const int32_t* first_key = nullptr;     // as in forward
  const T* qkv = nullptr;                 // [B T, width]
  const T* y = nullptr;                   // [B T, H d] from forward
  const Accum<T>* log_sum_exp = nullptr;  // [B, H, T] from forward
  const T* dy = nullptr;                  // [B T, H d]
  T* dqkv = nullptr;                      // [B T, width]
  bool accumulate = false;                // dqkv += instead of =
  const int32_t* last_key = nullptr;      // as in forward
  int64_t window = 0;                     // as in forward
};

template <Device D, class T>
void attention_backward(const AttentionGradArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
