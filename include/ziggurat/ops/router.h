// The router: from the logits of S tokens to index tables that dispatch and combine use.
// Routing is decided within one micro-batch, so it never depends on how ranks share the work.
#pragma once

#include <cstdint>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/comm/communicator.h>
#include <ziggurat/kernels/router.h>

namespace ziggurat::ops {

using kernels::ChoiceNoise;
using kernels::DropPolicy;
using kernels::Renormalise;
using kernels::RouterScore;
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
//   group         each of the groups in which capacity is counted; the losses are averaged (flaxformer)
//   sequence      each run of `sequence_length` tokens; the losses are averaged (DeepSeek-V3)
//   global_batch  fractions of the whole batch (Qwen, arXiv 2501.11873): use_fractions_of_step puts them
//                 into the routing before backward; until then they are those of the micro-batch
enum class BalanceScope { micro_batch, group, sequence, global_batch };

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
  // Of losses whose mean over the step's micro-batches counts; backward adds their gradients to the logits'.
  double balance_coefficient = 0, z_coefficient = 0;
  // A device other than the CPU has none of the following but their defaults.
  RouterScore score = RouterScore::softmax;
  double weight_scale = 1;  // of the weights
  int64_t expert_groups = 1, chosen_groups = 1;
  Tensor choice_bias = {};   // [E] in the dtype of the logits, added to scores for the choice only; or empty
  int64_t group_tokens = 0;  // capacity is counted in runs of so many tokens, if they divide them; 0: in all
  uint64_t layer = 0;        // part of the name of the random streams
  // Explicit noise [S,E], where the logits are, instead of Philox's, to replay known vectors.
  const float* keys = nullptr;
  const float* gumbel = nullptr;
};

int64_t expert_capacity(const RouterArgs& args, double factor, int64_t tokens, int64_t experts);

// All tables are tensors in the tape's memory, on the logits' device, which the host does not read. Rows are
// the choices that kept their place, sorted by expert and, within an expert, in slot order.
struct Routing {
  Var weights;  // [S,k] combine weights, zero where dropped
  int64_t tokens = 0, experts = 0, top_k = 0, groups = 1;
  // As many as there are on the CPU, where their number is at hand. Elsewhere what there may be at most,
  // min(S k, E capacity): those behind the last belong to nobody, and nobody's sums hold them.
  int64_t rows = 0;
  int64_t capacity = 0;     // rows per expert at most
  Tensor expert;            // i32 [S,k]
  Tensor row_of_choice;     // i32 [S,k], -1: dropped
  Tensor token_of_row;      // i32 [rows], -1: nobody's row
  Tensor choice_of_row;     // i32 [rows], in [0, k), or -1
  Tensor counts;            // i32 [E] rows
  Tensor counts_before;     // i32 [E] choices before drops
  Tensor offsets;           // i32 [E+1] where each expert's rows begin
  Tensor fraction;          // f64 [groups,E] share of assignments; read by backward
  Tensor mean_probability;  // f64 [groups,E]
  Tensor losses;            // f64 [3]: kernels::RouterLosses
};

// logits [S,E], f32 (f64 in gradient checks).
Routing route(Tape& tape, Var logits, const RouterArgs& args);

// For BalanceScope::global_batch: the routing's fractions, and with them its balance, become those of all
// ranks and of the micro-batches of the step so far. assignments_of_step, f64 [E], keeps what was counted;
// `first`: of the step. A recomputed forward meets the fractions of its first run. Collective over
// `data_parallel`, unless it is a recomputation.
void use_fractions_of_step(Tape& tape, const Routing& routing, Communicator& data_parallel,
                           const Tensor& assignments_of_step, bool first);

// loads [E] = the choices before drops that `sums` of add_statistics holds, over all ranks of the group.
// Collective.
void sum_loads(const Tensor& sums, const Tensor& loads, Communicator& data_parallel, Stream& stream);
// bias_e += rate sign(mean of loads - loads_e).
void move_balance_bias(const Tensor& loads, double rate, const Tensor& bias, Stream& stream);
// The routing of tokens [first, first + n) alone, which are counted from 0: of who has only these.
// `counts_before`, `capacity` and the losses stay those of all.
Routing own_tokens(Tape& tape, const Routing& routing, int64_t first, int64_t n);

// The same routing with `capacity` rows for every expert, of which those behind its last are nobody's;
// `offsets` stay those of the rows without them.
Routing in_blocks(Tape& tape, const Routing& routing);

// Adds what this routing did to `sums`, f64 [kernels::router_sums_size(E)].
void add_statistics(Tape& tape, const Routing& routing, double balance_coefficient, double z_coefficient,
                    const Tensor& sums);
// total, f64 [2], += balance and z-loss of the micro-batch that was the last in `sums`, with the
// coefficients.
void add_router_losses(const Tensor& sums, const Tensor& total, Stream& stream);

}  // namespace ziggurat::ops
