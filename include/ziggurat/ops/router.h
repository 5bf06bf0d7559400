// The router: from the logits of S tokens to index tables that dispatch and combine use.
// Routing is decided within one micro-batch, so it never depends on how ranks share the work.
#pragma once

#include <cstdint>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/router.h>

namespace ziggurat::ops {

using kernels::ChoiceNoise;
using kernels::DropPolicy;
using kernels::Renormalise;
using kernels::SlotOrder;

// Rows per expert for S tokens, E experts, k choices, clamped to [0, S] (an expert meets a token once):
//   with_top_k     max(ceil(S/E * factor * k), min_capacity)   DeepSpeed, in f32 as there
//   without_top_k  max(round(S/E * factor), min_capacity)      flaxformer, OpenMoE
enum class CapacityRule { with_top_k, without_top_k };

// Which choices the balancing loss counts: the first of each token (GShard, DeepSpeed top-1 and top-2), or
// all of them divided by k (DeepSpeed top-k, Megatron). Without the division by k (OpenMoE, Mixtral) the loss
// is k times larger: multiply the coefficient.
enum class BalanceCount { first_choice, all_choices };

// Over which tokens the fractions of the balancing loss are taken.
//   micro_batch   all tokens of the call
//   sequence      each run of `sequence_length` tokens; the losses are averaged (DeepSeek-V3)
//   global_batch  fractions of the whole batch (Qwen, arXiv 2501.11873): the caller overwrites
//   Routing::fraction
//                 before backward; until then they are those of the micro-batch
enum class BalanceScope { micro_batch, sequence, global_batch };

struct RouterArgs {
  int64_t top_k = 1;
  DropPolicy drop = DropPolicy::random;
  SlotOrder order = SlotOrder::choice_first;
  CapacityRule capacity_rule = CapacityRule::with_top_k;
  double capacity_factor = 1.0;
  // In evaluation nothing is dropped, or, if positive, by position. Nothing ever where the tape is dropless.
  double eval_capacity_factor = 0;
  int64_t min_capacity = 4;
  Renormalise renormalise = Renormalise::none;
  ChoiceNoise noise = ChoiceNoise::none;  // training only
  BalanceCount balance_count = BalanceCount::first_choice;
  BalanceScope balance_scope = BalanceScope::micro_batch;
  int64_t sequence_length = 0;  // tokens, for BalanceScope::sequence
  // Already multiplied by the loss scale of the micro-batch; backward adds their gradients to the logits'.
  double balance_coefficient = 0, z_coefficient = 0;
  uint64_t layer = 0;  // part of the name of the random streams
  // Explicit noise [S,E] instead of Philox's, to replay known vectors.
  const float* keys = nullptr;
  const float* gumbel = nullptr;
};

int64_t expert_capacity(const RouterArgs& args, double factor, int64_t tokens, int64_t experts);

// All tables live in the tape's arena. Rows are the choices that kept their place, sorted by expert and,
// within an expert, in slot order.
struct Routing {
  Var weights;  // [S,k] combine weights, zero where dropped
  int64_t tokens = 0, experts = 0, top_k = 0, rows = 0, groups = 1;
  int64_t capacity = 0;                      // rows per expert at most
  const int32_t* expert = nullptr;           // [S,k]
  const int32_t* row_of_choice = nullptr;    // [S,k], -1: dropped
  const int32_t* token_of_row = nullptr;     // [rows]
  const int32_t* choice_of_row = nullptr;    // [rows], in [0, k)
  const int64_t* counts = nullptr;           // [E] rows
  const int64_t* counts_before = nullptr;    // [E] choices before drops
  double* fraction = nullptr;                // [groups,E] share of assignments; read by backward
  const double* mean_probability = nullptr;  // [groups,E]
  double z = 0;                              // mean over tokens of lse^2 (ST-MoE eq. 5), without coefficient
  double entropy = 0;                        // mean over tokens, nats

  int64_t dropped() const { return tokens * top_k - rows; }  // choices
  // E sum_e fraction_e mean_probability_e, averaged over the groups, without coefficient; 1 when balanced.
  double balance() const;
};

// logits [S,E], f32 (f64 in gradient checks).
Routing route(Tape& tape, Var logits, const RouterArgs& args);

}  // namespace ziggurat::ops
