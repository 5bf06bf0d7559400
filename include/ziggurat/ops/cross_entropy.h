#pragma once

#include <cstdint>

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>
#include <ziggurat/comm/communicator.h>

namespace ziggurat::ops {

// Rows of logits at a time. Adding to the weight's gradient moves 8 V C bytes for each, under its own 2 V C
// rows flop when there are some hundreds of rows; the logits themselves take 4 V rows bytes.
constexpr int64_t kLogitsRows = 512;
// Rows of the weight that one product takes: its logits are done with while they are in cache. 33 times 64,
// the width of packed weights, rather than 2,048: at whole pages between their rows columns of logits share a
// few lines of the cache, and the weight's gradient took 8 % longer (measured on a Zen 1).
constexpr int64_t kVocabularyTile = 2112;

struct LossArgs {
  int64_t vocab_size = 0;          // rows of the weight from here on are padding: no part of the softmax
  int32_t ignore_index = -1;       // a target that counts for nothing
  double z_loss = 0;               // coefficient of log_sum_exp^2 in a token's loss
  double* token_losses = nullptr;  // [N] on x's device: cross-entropy in nats, 0 where ignored; or null
  // Ranks that share the vocabulary: the weight of rank r of T is rows [r R, (r + 1) R) of the whole one.
  // Null, or a group of one: it is whole.
  Communicator* vocabulary = nullptr;
};

// What a batch's tokens sum up to.
inline constexpr int64_t kLossSums = 4;
struct LossResult {
  double sum = 0;         // of cross-entropies in nats, over the counted tokens in order
  double z_loss_sum = 0;  // of z_loss * log_sum_exp^2; the loss that is differentiated is sum + z_loss_sum
  int64_t tokens = 0;     // counted: target is not ignore_index
  int64_t correct = 0;    // of them, those whose target has the largest logit
};

// The loss of logits = x weight^T against targets: x [N, C], weight [V_padded, C], targets [N] on x's device,
// each in [0, vocab_size) or ignore_index. Those on the host are checked here; those on a device by who put
// them there. The last op of a model: while recording it puts token_weight d(sum + z_loss_sum) into x's and
// the weight's gradients at once, because the logits are at hand (tape.backward() without root then runs the
// rest). Only a chunk of rows of logits exists at any time.
//
// With LossArgs::vocabulary all ranks have the same x and targets, and get the same sums; the gradient of x
// is this rank's part, of which the sum over ranks is meant. No rank has logits of others' part: they tell
// each other maxima and sums of tiles. Collective.
//
// Returns f64 [kLossSums], LossResult's members in their order, on x's device in the tape's memory: gone with
// the next micro-batch, and nobody has waited for it.
Tensor cross_entropy(Tape& tape, Var x, const Param& weight, const int32_t* targets, const LossArgs& args);

// The same numbers on the host, which waits for the stream. Zeros on a meta device.
LossResult read_loss(const Tensor& sums, Stream& stream);

}  // namespace ziggurat::ops
