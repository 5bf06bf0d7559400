// Softmax cross-entropy of rows of logits against one target each, and its gradient in the same pass.
// Per row: log_sum_exp = max + log sum_j e^(l_j - max), cross_entropy = log_sum_exp - l_target,
//   loss = cross_entropy + z_loss log_sum_exp^2        (z-loss: de Brebisson and Vincent 2016; PaLM, section
//   5) dl_j = grad_scale (softmax_j (1 + 2 z_loss log_sum_exp) - [j = target])
// Floor: memory, one read and one write of the logits (a row is meant to stay in cache between its passes).
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/runtime/device.h>

namespace ziggurat::kernels {

struct TokenLoss {
  double cross_entropy = 0;  // nats
  double z_loss = 0;         // z_loss * log_sum_exp^2
  bool counted = false;      // false: the target was ignore_index, all else is 0
  bool correct = false;      // no logit is larger than the target's
};

template <class A, class G>
struct CrossEntropyArgs {
  int64_t rows = 0, cols = 0;
  int64_t stride = 0;                // elements between rows of logits and of dlogits
  A* logits = nullptr;               // [rows, cols]; overwritten if dlogits is asked for
  const int32_t* targets = nullptr;  // [rows], each in [0, cols) or ignore_index
  int32_t ignore_index = -1;
  double grad_scale = 1, z_loss = 0;
  TokenLoss* losses = nullptr;  // [rows]
  G* dlogits = nullptr;         // [rows, cols], may be logits; or null
};

// Instantiated for (A, G) = (float, float), (float, bf16), (double, double). Same bits on any number of
// threads: a row belongs to one.
template <Device D, class A, class G>
void cross_entropy(const CrossEntropyArgs<A, G>& args, Stream& stream);

}  // namespace ziggurat::kernels
