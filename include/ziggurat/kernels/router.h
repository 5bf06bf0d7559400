// Routing of S tokens to E experts, k choices each, as index tables (never an [S,E,C] one-hot).
// The steps of a router, in order: softmax, choose, assign, weigh; and the gradient of the logits.
// T is float (or double in gradient checks). Bits never depend on the number of threads.
// Floor: memory, one read of the logits and one write of the probabilities; the tables are S k integers.
#pragma once

#include <cstdint>

#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct RouterKernels : OnCpu {
  static constexpr const char* kName = "router";
  using Cuda = Dtypes<float>;
};

// Of what is counted in double: router_balance, router_assignments, router_fractions, router_statistics.
struct RouterSumKernels : OnCpu {
  static constexpr const char* kName = "router sums";
  using Cuda = Dtypes<double>;
};

// Which candidates of an expert with more than `capacity` of them lose their place.
//   none         nobody (dropless): the capacity is the fullest expert's count
//   random       the smallest random keys (random token selection, DeepSpeed-MoE section 4.1.1)
//   position     the last in slot order
//   probability  the least probable
enum class DropPolicy { none, random, position, probability };

// The order of an expert's rows, and of DropPolicy::position.
//   choice_first  all first choices in token order, then all second choices, ... (GShard, DeepSpeed top-1 and
//   top-2)
//   token_first   token order (DeepSpeed top-k)
enum class SlotOrder { choice_first, token_first };

// Combine weights from the probabilities p of the chosen experts.
//   none       p
//   chosen     p / sum over the k choices, also the dropped ones
//   survivors  p / max(epsilon of T, sum over the choices that kept their place)
enum class Renormalise { none, chosen, survivors };

// Noise of the choice; the weights always come from the clean softmax.
//   rsample        top-1 = argmax(logits + Gumbel)
//   second_expert  top-2: the second choice = argmax(logits + Gumbel) without the first
enum class ChoiceNoise { none, rsample, second_expert };

// What a token's experts are chosen and weighted by.
//   softmax  probabilities, which depend on all experts
//   sigmoid  of each expert's logit by itself (DeepSeek-V3, arXiv 2412.19437, eq. 15)
enum class RouterScore { softmax, sigmoid };

template <class T>
struct RouterSoftmaxArgs {
  int64_t tokens = 0, experts = 0;
  const T* logits = nullptr;   // [S,E]
  T* probabilities = nullptr;  // [S,E]
  T* lse = nullptr;            // [S] log sum exp of a token's logits
  T* entropy = nullptr;        // [S] nats
};
template <Device D, class T>
void router_softmax(const RouterSoftmaxArgs<T>& args, Stream& stream);

// Sigmoid scores s.
template <class T>
struct RouterSigmoidArgs {
  int64_t tokens = 0, experts = 0;
  const T* logits = nullptr;  // [S,E]
  T* scores = nullptr;        // [S,E]
  T* sum = nullptr;           // [S] of a token's scores
  T* entropy = nullptr;       // [S] of scores / sum, nats
};
template <Device D, class T>
void router_sigmoid(const RouterSigmoidArgs<T>& args, Stream& stream);

template <class T>
struct RouterChooseArgs {
  int64_t tokens = 0, experts = 0, top_k = 1;
  ChoiceNoise noise = ChoiceNoise::none;
  const T* logits = nullptr;      // [S,E]
  const float* gumbel = nullptr;  // [S,E], if there is noise
  int32_t* expert = nullptr;      // [S,k] distinct per token, best first; of equal logits the lower expert
};
template <Device D, class T>
void router_choose(const RouterChooseArgs<T>& args, Stream& stream);

// The choice by score + bias, from the `chosen_groups` best of `groups` equal groups of experts (DeepSeek-V3
// section 2.1.2).
template <class T>
struct RouterLimitedChoiceArgs {
  int64_t tokens = 0, experts = 0, top_k = 1;
  int64_t groups = 1, chosen_groups = 1;
  int64_t best_of_group = 1;  // 1 or 2: a group is as good as the sum of its so many best experts; of equals
                              // the first
  const T* scores = nullptr;  // [S,E]
  const T* bias = nullptr;    // [E], or null
  int32_t* expert = nullptr;  // [S,k] distinct per token, best first; of equals the lower expert
};
template <Device D, class T>
void router_choose_limited(const RouterLimitedChoiceArgs<T>& args, Arena& workspace, Stream& stream);

template <class T>
struct RouterAssignArgs {
  int64_t tokens = 0, experts = 0, top_k = 1;
  DropPolicy drop = DropPolicy::none;
  SlotOrder order = SlotOrder::choice_first;
  int64_t capacity = 0;              // rows per expert at most; unused for DropPolicy::none
  int64_t rows = 0;                  // R, no fewer than there will be: min(S k, E capacity), dropless S k
  const int32_t* expert = nullptr;   // [S,k]
  const float* keys = nullptr;       // [S,E], for DropPolicy::random
  const T* probabilities = nullptr;  // [S,E], for DropPolicy::probability
  int32_t* counts_before = nullptr;  // [E] choices
  int32_t* counts = nullptr;         // [E] choices that kept their place
  int32_t* offsets = nullptr;        // [E+1] rows [offsets[e], offsets[e+1]) are expert e's
  int32_t* row_of_choice = nullptr;  // [S,k] row among all experts' rows, sorted by expert; -1: dropped
  int32_t* token_of_row = nullptr;   // [R]; -1 from row offsets[E] on
  int32_t* choice_of_row = nullptr;  // [R], in [0, k); likewise
  // Equal runs of tokens, in each of which an expert has `capacity` places; its rows come run by run.
  int64_t groups = 1;
};
template <Device D, class T>
void router_assign(const RouterAssignArgs<T>& args, Arena& workspace, Stream& stream);

template <class T>
struct RouterWeightArgs {
  int64_t tokens = 0, experts = 0, top_k = 1;
  Renormalise renormalise = Renormalise::none;
  const T* probabilities = nullptr;        // [S,E]
  const int32_t* expert = nullptr;         // [S,k]
  const int32_t* row_of_choice = nullptr;  // [S,k]
  T* weights = nullptr;                    // [S,k]; zero where dropped
  T scale = 1;                             // of all weights
};
template <Device D, class T>
void router_weights(const RouterWeightArgs<T>& args, Stream& stream);

// Means over each of `groups` equal runs of tokens, in double, in a fixed order.
template <class T>
struct RouterMeanArgs {
  int64_t tokens = 0, experts = 0, top_k = 1, groups = 1;
  int64_t counted_choices = 1;         // the first so many choices of a token count as assignments
  const T* probabilities = nullptr;    // [S,E]
  const int32_t* expert = nullptr;     // [S,k]
  double* mean_probability = nullptr;  // [groups,E]
  double* fraction = nullptr;          // [groups,E] share of the counted assignments, before drops
  const T* sum = nullptr;              // [S] what scores that do not add up to 1 are divided by, or null
};
template <Device D, class T>
void router_means(const RouterMeanArgs<T>& args, Stream& stream);

// What the losses of a micro-batch are made of, without their coefficients. f64 [3].
struct RouterLosses {
  double z;        // mean over tokens of lse^2 (ST-MoE eq. 5)
  double balance;  // E sum_e fraction_e mean_probability_e, averaged over the groups; 1 when balanced
  double entropy;  // mean over tokens, nats
};

// losses.z and losses.entropy; zeros without tokens.
template <class T>
struct RouterTokenLossArgs {
  int64_t tokens = 0;
  const T* lse = nullptr;      // [S], or null: z is 0
  const T* entropy = nullptr;  // [S]
  RouterLosses* losses = nullptr;
};
template <Device D, class T>
void router_token_losses(const RouterTokenLossArgs<T>& args, Stream& stream);

// losses.balance; zero without groups.
struct RouterBalanceArgs {
  int64_t experts = 0, groups = 1;
  const double* fraction = nullptr;          // [groups,E]
  const double* mean_probability = nullptr;  // [groups,E]
  RouterLosses* losses = nullptr;
};
template <Device D>
void router_balance(const RouterBalanceArgs& args, Stream& stream);

// Fractions of the assignments of all ranks and of the micro-batches of a step so far, in two halves between
// which `assignments` is summed over the ranks.
template <Device D>  // assignments [E] = fraction [E] tokens
void router_assignments(const double* fraction, int64_t experts, int64_t tokens, double* assignments,
                        Stream& stream);
struct RouterFractionArgs {
  int64_t experts = 0;
  const double* assignments = nullptr;  // [E] of this micro-batch; null: of_step has them
  bool first = false;                   // of its step: of_step starts from zeros
  double* of_step = nullptr;            // [E] += assignments
  double* fraction = nullptr;           // [E] of_step / max(1, its sum)
};
template <Device D>
void router_fractions(const RouterFractionArgs& args, Stream& stream);

// What a layer did over several micro-batches: sums, so that ranks and micro-batches add up. f64 [7], then
// [E] choices before drops and [E] rows.
struct RouterSums {
  double tokens, choices, micro_batches;
  double entropy;                   // over tokens, nats
  double balance, z;                // over micro-batches, without their coefficients
  double latest_balance, latest_z;  // no sums: of the latest micro-batch, with the coefficients
};
constexpr int64_t router_sums_size(int64_t experts) { return 8 + 2 * experts; }

struct RouterStatisticsArgs {
  int64_t tokens = 0, experts = 0, top_k = 1;
  double balance_coefficient = 0, z_coefficient = 0;
  const RouterLosses* losses = nullptr;
  const int32_t* counts_before = nullptr;  // [E]
  const int32_t* counts = nullptr;         // [E]
  double* sums = nullptr;                  // [router_sums_size(E)], added to
};
template <Device D>
void router_statistics(const RouterStatisticsArgs& args, Stream& stream);
template <Device D>  // total [2] += sums' latest_balance, latest_z
void router_add_losses(const double* sums, double* total, Stream& stream);

// loads [E] = the choices before drops that `sums` holds.
template <Device D>
void router_loads(const double* sums, int64_t experts, double* loads, Stream& stream);
// bias_e += rate sign(mean of loads - loads_e) (arXiv 2408.15664, algorithm 1).
template <Device D, class T>
void router_move_bias(const double* loads, int64_t experts, double rate, T* bias, Stream& stream);

template <class T>
struct RouterGradArgs {
  RouterWeightArgs<T> forward;
  int64_t groups = 1;
  const T* dweights = nullptr;         // [S,k]
  const T* lse = nullptr;              // [S]
  const double* fraction = nullptr;    // [groups,E]
  double balance_coefficient = 0;      // of E sum_e fraction_e mean_probability_e, averaged over the groups
  double z_coefficient = 0;            // of mean over tokens of lse^2
  const double* loss_scale = nullptr;  // [1] times both
  bool accumulate = false;
  T* dlogits = nullptr;  // [S,E]
  // Of sigmoid scores lse is their sum and there is no z-loss.
  RouterScore score = RouterScore::softmax;
};
template <Device D, class T>
void router_backward(const RouterGradArgs<T>& args, Arena& workspace, Stream& stream);

// The noise of element i of an [S,E] array: a function of (seed, layer, moment, i) only.
struct RouterNoise {
  uint64_t seed = 0, layer = 0;
  const uint64_t* moment = nullptr;  // [1]
};
template <Device D>
void router_keys(const RouterNoise& noise, float* keys, int64_t n, Stream& stream);  // U(0,1)
template <Device D>
void router_gumbel(const RouterNoise& noise, float* gumbel, int64_t n, Stream& stream);  // -log(-log U)

}  // namespace ziggurat::kernels
