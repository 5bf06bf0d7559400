// Softmax cross-entropy of rows of logits against one target each, and its gradient, over a vocabulary that
// comes in tiles of columns, so that a tile is done with while it is in cache. With a reference r_t near the
// row's largest logit in a tile:
//   e_j = e^(l_j - r_t), s_t = sum of e_j                                     softmax_tile
//   r = max r_t, log_sum_exp = r + log sum_t s_t e^(r_t - r)                   cross_entropy
//   cross_entropy = log_sum_exp - l_target
//   loss = cross_entropy + z_loss log_sum_exp^2   (z-loss: de Brebisson and Vincent 2016; PaLM section 5)
//   dl_j = f_t e_j - grad_scale [j = target]
//   f_t = grad_scale (1 + 2 z_loss log_sum_exp) e^(r_t - log_sum_exp)
// So nobody has to go over the tiles again to normalise them: the products with dl take f_t on their other
// operand's rows, and the target's term apart, as one row each (subtract_targets). Floor: one read and one
// write of the logits from cache; the rest is small beside them.
// A row keeps its reference from tile to tile while it can, and so its factor.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct CrossEntropyKernels : OnCpu {
  static constexpr const char* kName = "cross_entropy";
  using Cuda = Dtypes<float, bf16>;
};

template <class A, class G>
struct SoftmaxTileArgs {
  int64_t rows = 0, cols = 0, stride = 0;  // columns of the vocabulary, and elements between rows
  const A* logits = nullptr;               // [rows, cols]
  const int32_t* targets = nullptr;        // [rows], counted over the whole vocabulary
  int64_t first_column = 0;                // of the tile in the vocabulary
  const A* previous = nullptr;             // [rows] references of the tile before, or null
  A* reference = nullptr;     // [rows] r_t: previous, or if that is too far below the maximum that
  A* maximum = nullptr;       // [rows] of the logits
  double* sum = nullptr;      // [rows] s_t
  A* target_logit = nullptr;  // [rows], written where the target lies in this tile
  G* exponentials = nullptr;  // [rows, stride], 0 beyond cols; may be logits; or null
};
// Instantiated for (A, G) = (float, float), (float, bf16), (double, double), as all below. Same bits on any
// number of threads: a row belongs to one.
template <Device D, class A, class G>
void softmax_tile(const SoftmaxTileArgs<A, G>& args, Stream& stream);

struct TokenLoss {
  double cross_entropy = 0;  // nats
  double z_loss = 0;         // z_loss * log_sum_exp^2
  bool counted = false;      // false: the target was ignore_index, all else is 0
  bool correct = false;      // no logit is larger than the target's
};

template <class A>
struct CrossEntropyArgs {
  int64_t rows = 0, tiles = 0;
  const A* reference = nullptr;      // [tiles, rows]
  const A* maximum = nullptr;        // [tiles, rows]
  const double* sum = nullptr;       // [tiles, rows]
  const A* target_logit = nullptr;   // [rows]
  const int32_t* targets = nullptr;  // [rows], each in the vocabulary or ignore_index
  int32_t ignore_index = -1;
  const double* grad_scale = nullptr;  // [1]
  double z_loss = 0;
  TokenLoss* losses = nullptr;  // [rows]
  A* factor = nullptr;          // [tiles, rows] f_t, 0 where ignored; or null
};
template <Device D, class A>
void cross_entropy(const CrossEntropyArgs<A>& args, Stream& stream);

struct AddTokenLossesArgs {
  int64_t rows = 0;
  const TokenLoss* losses = nullptr;  // [rows]
  double* sums = nullptr;             // [4] += cross-entropies, z-losses, tokens counted, tokens correct
  double* token_losses = nullptr;     // [rows] = cross-entropies; or null
};
// On the CPU token after token, so that how the rows of a batch are cut changes no bit; on CUDA those of a
// call first, in a tree that depends on their number alone.
template <Device D>
void add_token_losses(const AddTokenLossesArgs& args, Stream& stream);

// y [rows, cols] = factor [rows] x, row by row
template <Device D, class A, class G>
void scale_rows(const G* x, const A* factor, int64_t rows, int64_t cols, G* y, Stream& stream);

// y [rows, cols] += factor [rows] x, row by row
template <Device D, class A>
void add_scaled_rows(const A* x, const A* factor, int64_t rows, int64_t cols, A* y, Stream& stream);

template <class A, class G>
struct SubtractTargetsArgs {
  int64_t rows = 0, cols = 0;
  const int32_t* targets = nullptr;
  int32_t ignore_index = -1;
  const double* grad_scale = nullptr;  // [1]
  const G* x = nullptr;                // [rows, cols]
  const G* weight = nullptr;           // [vocabulary, cols]
  A* dx = nullptr;                     // [rows, cols] -= grad_scale weight[target]; or null
  A* dweight = nullptr;                // [vocabulary, cols]: row target -= grad_scale x; or null
};
// Rows in order, so equal targets add up in one order.
template <Device D, class A, class G>
void subtract_targets(const SubtractTargetsArgs<A, G>& args, Stream& stream);

}  // namespace ziggurat::kernels
