// Of tokens S, experts E and choices k. A warp takes a token's logits; the second time they are read they
// come from the cache. router_assign: a block takes an expert, and finds its choices by reading all of them,
// twice: 8 E S k bytes from the L2 cache, in a fixed order and without atomics on device memory (256 experts
// and 16384 tokens of 8 choices: 268 MB, 60 us at 5 TB/s). Which choices keep their place is decided by the
// capacity's best key, eight bits at a time. Floor: memory; softmax 8 S E bytes, one exponential and 6 FLOPs
// a value; choose 4 S E (8 S E with noise); backward 12 S E (16 S E where it adds up) and 6 FLOPs a value;
// keys and gumbel 4 S E to write and 15 integer operations a value; the tables are 4 S k bytes each. The sums
// in double that follow are one block each, a launch's time: they read 8 S bytes at most, and else some
// numbers for each expert.
#include <kernels/cuda/device/dynamic_shared.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/core/philox.h>
#include <ziggurat/kernels/router.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kThreadsOfAssign = kWarp * kWarp;  // a warp has one lane for each of its warps
constexpr float kEpsilon = 0x1p-23f;             // of float

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / kWarp; }
// The token of a warp; all its lanes come to the same places.
__device__ __forceinline__ int64_t token_of_warp() { return int64_t{blockIdx.x} * kWarps + warp(); }

__global__ void __launch_bounds__(kThreads) router_softmax_kernel(RouterSoftmaxArgs<float> g) {
  const int64_t s = token_of_warp();
  if (s >= g.tokens) return;
  const float* z = g.logits + s * g.experts;
  float* p = g.probabilities + s * g.experts;
  float top = Maximum::kNeutral<float>;
  for (int64_t e = lane(); e < g.experts; e += kWarp) top = fmaxf(top, z[e]);
  top = warp_reduce<Maximum>(top);
  float sum = 0;
  for (int64_t e = lane(); e < g.experts; e += kWarp) sum += expf(z[e] - top);
  sum = warp_sum(sum);
  float mean_logit = 0;
  for (int64_t e = lane(); e < g.experts; e += kWarp) {
    const float above = z[e] - top, probability = expf(above) / sum;
    p[e] = probability;
    mean_logit += probability * above;
  }
  mean_logit = warp_sum(mean_logit);
  if (lane() != 0) return;
  g.lse[s] = top + logf(sum);
  g.entropy[s] = logf(sum) - mean_logit;  // -sum p log p, with log p = z - lse
}

__global__ void __launch_bounds__(kThreads) router_sigmoid_kernel(RouterSigmoidArgs<float> g) {
  const int64_t s = token_of_warp();
  if (s >= g.tokens) return;
  const float* z = g.logits + s * g.experts;
  float* score = g.scores + s * g.experts;
  float sum = 0, entropy = 0;
  for (int64_t e = lane(); e < g.experts; e += kWarp) sum += score[e] = sigmoid(z[e]);
  sum = warp_sum(sum);
  for (int64_t e = lane(); e < g.experts; e += kWarp) {
    const float share = score[e] / sum;
    if (score[e] > 0) entropy -= share * logf(share);
  }
  entropy = warp_sum(entropy);
  if (lane() != 0) return;
  g.sum[s] = sum;
  g.entropy[s] = entropy;
}

struct Candidate {
  float value;
  int expert;  // -1: none
};
__device__ __forceinline__ Candidate better(Candidate a, Candidate b) {
  if (a.expert < 0) return b;
  if (b.expert < 0) return a;
  const bool first = a.value > b.value || (a.value == b.value && a.expert < b.expert);
  return first ? a : b;
}

// By a warp: the largest of n values among those not taken; of equals, the first. A NaN is passed over,
// unless it is the first of the rest: then nothing is larger.
template <class Value, class Taken>
__device__ __forceinline__ int best_of_rest(int n, const Value& value, const Taken& taken) {
  Candidate best{0, -1};
  int first = n;
  for (int e = lane(); e < n; e += kWarp) {
    if (taken(e)) continue;
    const float of_this = value(e);
    first = min(first, e);
    if (of_this == of_this) best = better(best, {of_this, e});
  }
#pragma unroll
  for (int bits = kWarp / 2; bits > 0; bits /= 2) {
    best = better(best, {__shfl_xor_sync(kWholeWarp, best.value, bits),
                         __shfl_xor_sync(kWholeWarp, best.expert, bits)});
  }
  first = __reduce_min_sync(kWholeWarp, first);
  const float of_first = value(first);
  return of_first == of_first ? best.expert : first;
}

// A token's k choices, best first, by a warp.
template <class Value>
__device__ __forceinline__ void choose_best(int experts, int top_k, const Value& value, int32_t* chosen) {
  for (int j = 0; j < top_k; ++j) {
    const auto taken = [&](int e) {
      bool yes = false;
      for (int i = 0; i < j; ++i) yes = yes || chosen[i] == e;
      return yes;
    };
    const int best = best_of_rest(
        experts, [&](int e) { return value(e, j); }, taken);
    if (lane() == 0) chosen[j] = best;
    __syncwarp();  // the next round reads it
  }
}

__global__ void __launch_bounds__(kThreads) router_choose_kernel(RouterChooseArgs<float> g) {
  const int64_t s = token_of_warp();
  if (s >= g.tokens) return;
  const float* z = g.logits + s * g.experts;
  const float* gumbel = g.gumbel + s * g.experts;
  const auto value = [&](int e, int j) {
    const bool noisy = g.noise == ChoiceNoise::rsample || (g.noise == ChoiceNoise::second_expert && j == 1);
    return noisy ? z[e] + gumbel[e] : z[e];
  };
  choose_best(static_cast<int>(g.experts), static_cast<int>(g.top_k), value, g.expert + s * g.top_k);
}

// A group of experts of one token.
struct Group {
  float value;
  int chosen;
};
__global__ void __launch_bounds__(kThreads) router_choose_limited_kernel(RouterLimitedChoiceArgs<float> g) {
  const int64_t s = token_of_warp();
  if (s >= g.tokens) return;
  const int experts = static_cast<int>(g.experts), groups = static_cast<int>(g.groups),
            size = experts / groups;
  Group* const of_group = dynamic_shared<Group>() + warp() * groups;
  const float* score = g.scores + s * experts;
  const auto of_expert = [&](int e) { return g.bias == nullptr ? score[e] : score[e] + g.bias[e]; };
  const bool limited = g.chosen_groups < g.groups;
  for (int group = 0; limited && group < groups; ++group) {
    const auto own = [&](int e) { return of_expert(group * size + e); };
    int second = -1;
    float sum = 0;
    // Of the best two at most: what a group is judged by is the caller's choice between one and two.
    for (int i = 0; i < min(static_cast<int>(g.best_of_group), size); ++i) {
      const int best = best_of_rest(size, own, [&](int e) { return e == second; });
      sum += own(best);
      second = best;
    }
    if (lane() == 0) of_group[group] = {sum, 0};
    __syncwarp();
  }
  for (int i = 0; limited && i < g.chosen_groups; ++i) {
    const int best = best_of_rest(
        groups, [&](int group) { return of_group[group].value; },
        [&](int group) { return of_group[group].chosen != 0; });
    __syncwarp();  // before it is written
    if (lane() == 0) of_group[best].chosen = 1;
    __syncwarp();
  }
  const auto value = [&](int e, int) {
    return !limited || of_group[e / size].chosen != 0 ? of_expert(e) : Maximum::kNeutral<float>;
  };
  choose_best(experts, static_cast<int>(g.top_k), value, g.expert + s * g.top_k);
}

// Which choice = token * k + j is number `slot`, of all groups of tokens.
__device__ __forceinline__ int choice_of_slot(const RouterAssignArgs<float>& g, int slot) {
  if (g.order == SlotOrder::token_first) return slot;
  const int tokens = static_cast<int>(g.tokens / g.groups), k = static_cast<int>(g.top_k);
  const int group = slot / (tokens * k), in_group = slot % (tokens * k);
  return group * tokens * k + in_group % tokens * k + in_group / tokens;
}

// of_group [groups, E] choices. Block (expert, group).
__global__ void __launch_bounds__(kThreadsOfAssign)
    count_choices_kernel(RouterAssignArgs<float> g, int32_t* of_group) {
  const int expert = static_cast<int>(blockIdx.x), group = static_cast<int>(blockIdx.y),
            choices = static_cast<int>(g.tokens / g.groups * g.top_k), end = (group + 1) * choices;
  int count = 0;
  for (int c = group * choices + static_cast<int>(threadIdx.x); c < end; c += kThreadsOfAssign)
    count += g.expert[c] == expert;
  count = block_sum<kThreadsOfAssign>(count);
  if (threadIdx.x == 0) of_group[group * g.experts + expert] = count;
}

// How many threads before this one say yes, after `before`, to which the block's number is added. All come.
__device__ __forceinline__ int numbered(bool yes, int& before) {
  __shared__ int counts[kWarp];
  const unsigned in_warp = __ballot_sync(kWholeWarp, yes);
  if (lane() == 0) counts[warp()] = __popc(in_warp);
  __syncthreads();
  const int count = counts[lane()];
  const int number = before + __reduce_add_sync(kWholeWarp, lane() < warp() ? count : 0) +
                     __popc(in_warp & ((1u << lane()) - 1u));
  before += __reduce_add_sync(kWholeWarp, count);
  __syncthreads();  // before the next call writes
  return number;
}

// The order of an expert's candidates, best last: by score, a NaN or a negative one as the least; of equal
// scores the lower choice is better. No two are equal.
__device__ __forceinline__ unsigned long long key_of(const RouterAssignArgs<float>& g, int expert,
                                                     int choice) {
  const int64_t element = choice / g.top_k * g.experts + expert;
  const float score = g.drop == DropPolicy::random ? g.keys[element] : g.probabilities[element];
  const unsigned place = score >= 0 ? __float_as_uint(score + 0.0f) + 1 : 0;  // + 0: -0 is 0
  return static_cast<unsigned long long>(place) << 32 | ~static_cast<unsigned>(choice);
}

// The capacity's largest key of n > capacity candidates. All threads come, and get it.
__device__ unsigned long long least_kept_key(const RouterAssignArgs<float>& g, int expert,
                                             const int32_t* candidates, int n) {
  constexpr int kDigits = 256;
  __shared__ unsigned counts[kDigits];
  __shared__ unsigned digit, left;
  unsigned long long prefix = 0, mask = 0;
  auto wanted = static_cast<unsigned>(g.capacity);  // of those with the prefix
  if (wanted == 0) return ~0ull;                    // larger than any key
  for (int shift = 56; shift >= 0; shift -= 8) {
    if (threadIdx.x < kDigits) counts[threadIdx.x] = 0;
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreadsOfAssign) {
      const unsigned long long key = key_of(g, expert, candidates[i]);
      if ((key & mask) == prefix) atomicAdd(&counts[key >> shift & 0xff], 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned above = 0;
      int d = kDigits - 1;
      while (above + counts[d] < wanted) above += counts[d--];
      digit = static_cast<unsigned>(d);
      left = wanted - above;
    }
    __syncthreads();
    prefix |= static_cast<unsigned long long>(digit) << shift;
    mask |= 0xffull << shift;
    wanted = left;
    __syncthreads();  // before the next digit is written
  }
  return prefix;
}

// candidates [S k]: all choices, sorted by expert, in slot order. of_group [groups, E]: choices; where there
// is one group, g.counts_before.
__global__ void __launch_bounds__(kThreadsOfAssign)
    assign_rows_kernel(RouterAssignArgs<float> g, const int32_t* of_group, int32_t* candidates) {
  const int expert = static_cast<int>(blockIdx.x), choices = static_cast<int>(g.tokens * g.top_k);
  const int thread = static_cast<int>(threadIdx.x);
  const bool drops = g.drop != DropPolicy::none;
  const auto capacity = static_cast<int>(g.capacity);
  const auto kept_of = [&](int count) { return drops ? min(count, capacity) : count; };

  const int experts = static_cast<int>(g.experts), groups = static_cast<int>(g.groups);
  int lower_choices = 0, lower_rows = 0;  // of the experts before
  for (int i = thread; i < groups * experts; i += kThreadsOfAssign) {
    if (i % experts >= expert) continue;
    lower_choices += of_group[i];
    lower_rows += kept_of(of_group[i]);
  }
  candidates += block_sum<kThreadsOfAssign>(lower_choices);
  int row = block_sum<kThreadsOfAssign>(lower_rows);
  int own_choices = 0, own_rows = 0;
  for (int group = 0; group < groups; ++group) {
    const int count = of_group[group * experts + expert];
    own_choices += count;
    own_rows += kept_of(count);
  }
  if (thread == 0) {
    if (groups > 1) g.counts_before[expert] = own_choices;
    g.counts[expert] = own_rows;
    g.offsets[expert] = row;
  }
  if (expert == experts - 1) {  // whose rows are the last
    const int rows = row + own_rows;
    if (thread == 0) g.offsets[g.experts] = rows;
    for (int64_t i = rows + thread; i < g.rows; i += kThreadsOfAssign)
      g.token_of_row[i] = g.choice_of_row[i] = -1;
  }

  int found = 0;
  for (int slot = 0; slot < choices; slot += kThreadsOfAssign) {
    const int choice = slot + thread < choices ? choice_of_slot(g, slot + thread) : -1;
    const bool mine = choice >= 0 && g.expert[choice] == expert;
    const int number = numbered(mine, found);
    if (mine) candidates[number] = choice;
  }
  __syncthreads();

  for (int group = 0; group < groups; ++group) {
    const int n = of_group[group * experts + expert];
    const bool full = drops && n > capacity, by_key = full && g.drop != DropPolicy::position;
    const unsigned long long least = by_key ? least_kept_key(g, expert, candidates, n) : 0;
    for (int first = 0; first < n; first += kThreadsOfAssign) {
      const int i = first + thread;
      const int choice = i < n ? candidates[i] : -1;
      bool kept = choice >= 0;
      if (full) kept = kept && (by_key ? key_of(g, expert, choice) >= least : i < capacity);
      const int at = numbered(kept, row);
      if (choice >= 0) g.row_of_choice[choice] = kept ? at : -1;
      if (kept) {
        g.token_of_row[at] = choice / static_cast<int>(g.top_k);
        g.choice_of_row[at] = choice % static_cast<int>(g.top_k);
      }
    }
    candidates += n;
  }
}

// What a token's probabilities are divided by; 1 without renormalisation.
__device__ __forceinline__ float weight_divisor(const RouterWeightArgs<float>& g, int64_t s) {
  if (g.renormalise == Renormalise::none) return 1;
  float sum = 0;
  for (int64_t c = s * g.top_k; c < (s + 1) * g.top_k; ++c) {
    const bool counts = g.renormalise == Renormalise::chosen || g.row_of_choice[c] >= 0;
    if (counts) sum += g.probabilities[s * g.experts + g.expert[c]];
  }
  return fmaxf(sum, kEpsilon);
}

__global__ void __launch_bounds__(kThreads) router_weights_kernel(RouterWeightArgs<float> g) {
  const int64_t s = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (s >= g.tokens) return;
  const float divisor = weight_divisor(g, s);
  for (int64_t c = s * g.top_k; c < (s + 1) * g.top_k; ++c) {
    const float p = g.probabilities[s * g.experts + g.expert[c]];
    g.weights[c] = g.row_of_choice[c] < 0 ? 0.0f : g.scale * p / divisor;
  }
}

// Block (group, tile): 32 experts, one a lane; warp w takes every kWarpsOfMeans'th token from w on.
constexpr int kWarpsOfMeans = 32;
__global__ void __launch_bounds__(kWarp* kWarpsOfMeans) router_means_kernel(RouterMeanArgs<float> g) {
  __shared__ double sums[kWarpsOfMeans][kWarp];
  __shared__ int counts[kWarpsOfMeans][kWarp];
  const int64_t group = blockIdx.x, length = g.tokens / g.groups;
  const int expert = static_cast<int>(blockIdx.y) * kWarp + lane();
  double sum = 0;
  int count = 0;
  for (int64_t s = group * length + warp(); s < (group + 1) * length; s += kWarpsOfMeans) {
    if (expert < g.experts) {
      const float p = g.probabilities[s * g.experts + expert];
      sum += static_cast<double>(g.sum == nullptr ? p : p / g.sum[s]);
    }
    for (int64_t j = 0; j < g.counted_choices; ++j) count += g.expert[s * g.top_k + j] == expert;
  }
  sums[warp()][lane()] = sum;
  counts[warp()][lane()] = count;
  __syncthreads();
  if (warp() != 0 || expert >= g.experts) return;
  for (int w = 1; w < kWarpsOfMeans; ++w) {
    sum += sums[w][lane()];
    count += counts[w][lane()];
  }
  const auto tokens = static_cast<double>(length > 0 ? length : 1);
  g.mean_probability[group * g.experts + expert] = sum / tokens;
  g.fraction[group * g.experts + expert] = count / (tokens * static_cast<double>(g.counted_choices));
}

constexpr int kThreadsOfSums = 1024;

__global__ void __launch_bounds__(kThreadsOfSums) router_token_losses_kernel(RouterTokenLossArgs<float> g) {
  double z = 0, entropy = 0;
  for (int64_t s = threadIdx.x; s < g.tokens; s += kThreadsOfSums) {
    const double lse = g.lse == nullptr ? 0.0 : static_cast<double>(g.lse[s]);
    z += lse * lse;
    entropy += static_cast<double>(g.entropy[s]);
  }
  z = block_sum<kThreadsOfSums>(z);
  entropy = block_sum<kThreadsOfSums>(entropy);
  if (threadIdx.x != 0) return;
  const auto tokens = static_cast<double>(g.tokens > 0 ? g.tokens : 1);
  g.losses->z = z / tokens;
  g.losses->entropy = entropy / tokens;
}

__global__ void __launch_bounds__(kThreadsOfSums) router_balance_kernel(RouterBalanceArgs g) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < g.groups * g.experts; i += kThreadsOfSums) {
    sum += g.fraction[i] * g.mean_probability[i];
  }
  sum = block_sum<kThreadsOfSums>(sum);
  const auto groups = static_cast<double>(g.groups > 0 ? g.groups : 1);
  if (threadIdx.x == 0) g.losses->balance = sum * static_cast<double>(g.experts) / groups;
}

__global__ void __launch_bounds__(kThreads)
    router_assignments_kernel(const double* fraction, int64_t experts, double tokens, double* assignments) {
  const int64_t e = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (e < experts) assignments[e] = fraction[e] * tokens;
}

__global__ void __launch_bounds__(kThreadsOfSums) router_fractions_kernel(RouterFractionArgs g) {
  double total = 0;
  for (int64_t e = threadIdx.x; e < g.experts; e += kThreadsOfSums) {
    double assignments = g.first ? 0 : g.of_step[e];
    if (g.assignments != nullptr) assignments += g.assignments[e];
    g.of_step[e] = assignments;
    total += assignments;
  }
  total = block_sum<kThreadsOfSums>(total);
  if (total < 1) total = 1;
  for (int64_t e = threadIdx.x; e < g.experts; e += kThreadsOfSums) g.fraction[e] = g.of_step[e] / total;
}

__global__ void __launch_bounds__(kThreads) router_statistics_kernel(RouterStatisticsArgs g) {
  const int64_t e = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (e < g.experts) {
    double* before = g.sums + router_sums_size(0);
    before[e] += g.counts_before[e];
    before[g.experts + e] += g.counts[e];
  }
  if (e != 0) return;
  auto& sums = *reinterpret_cast<RouterSums*>(g.sums);
  const RouterLosses losses = *g.losses;
  const auto tokens = static_cast<double>(g.tokens);
  sums.tokens += tokens;
  sums.choices += tokens * static_cast<double>(g.top_k);
  sums.micro_batches += 1;
  sums.entropy += losses.entropy * tokens;
  sums.balance += losses.balance;
  sums.z += losses.z;
  sums.latest_balance = g.balance_coefficient * losses.balance;
  sums.latest_z = g.z_coefficient * losses.z;
}

__global__ void router_add_losses_kernel(const double* sums, double* total) {
  total[0] += reinterpret_cast<const RouterSums*>(sums)->latest_balance;
  total[1] += reinterpret_cast<const RouterSums*>(sums)->latest_z;
}

// A token's derivatives by its probabilities, of the balancing loss and of the weights.
//   d balance / dp_e = E fraction_e / S
//   w_j = kept_j c p_j / q, c the scale, q the sum over the counted choices:
//   dp_j += (kept_j c dw_j - counted_j sum_i dw_i w_i) / q
struct ProbabilityGradient {
  __device__ ProbabilityGradient(const RouterGradArgs<float>& args, int64_t token, double balance_per_token)
      : g(args), s(token), balance(balance_per_token), divisor(weight_divisor(args.forward, token)) {
    const int64_t k = g.forward.top_k;
    for (int64_t c = s * k; c < (s + 1) * k; ++c) dw_w += g.dweights[c] * g.forward.weights[c];
    const int64_t groups = g.groups > 0 ? g.groups : 1, length = g.forward.tokens / groups;
    fraction = g.fraction + s / (length > 0 ? length : 1) * g.forward.experts;
  }
  __device__ float of_balance(int64_t e) const {
    return balance == 0 ? 0.0f : static_cast<float>(balance * fraction[e]);
  }
  __device__ float of_weights(int64_t e) const {
    const RouterWeightArgs<float>& f = g.forward;
    float dp = 0;
    for (int64_t c = s * f.top_k; c < (s + 1) * f.top_k; ++c) {
      if (f.expert[c] != e) continue;
      const bool kept = f.row_of_choice[c] >= 0, clamped = divisor <= kEpsilon;  // then it is a constant
      const bool counted = !clamped && (f.renormalise == Renormalise::chosen ||
                                        (f.renormalise == Renormalise::survivors && kept));
      dp += ((kept ? f.scale * g.dweights[c] : 0.0f) - (counted ? dw_w : 0.0f)) / divisor;
    }
    return dp;
  }
  __device__ float operator[](int64_t e) const { return of_balance(e) + of_weights(e); }
  const RouterGradArgs<float>& g;
  int64_t s;
  double balance;
  float divisor, dw_w = 0;
  const double* fraction;
};

// dlogit_e = p_e (dp_e - sum_i p_i dp_i) + z_coefficient 2 lse p_e / S; of sigmoids p_e (1 - p_e) dp_e
__global__ void __launch_bounds__(kThreads)
    router_backward_kernel(RouterGradArgs<float> g, double per_token) {
  const int64_t s = token_of_warp(), experts = g.forward.experts;
  if (s >= g.forward.tokens) return;
  const double scale = *g.loss_scale;
  const double balance = g.balance_coefficient * scale * static_cast<double>(experts) * per_token;
  const float* p = g.forward.probabilities + s * experts;
  const ProbabilityGradient dp(g, s, balance);
  float* dlogits = g.dlogits + s * experts;
  if (g.score == RouterScore::sigmoid) {  // n = p / sum:  dp_e += (dn_e - sum_i n_i dn_i) / sum
    const float sum = g.lse[s];
    float n_dn = 0;
    for (int64_t e = lane(); e < experts; e += kWarp) n_dn += p[e] / sum * dp.of_balance(e);
    n_dn = warp_sum(n_dn);
    for (int64_t e = lane(); e < experts; e += kWarp) {
      const float d = p[e] * (1 - p[e]) * ((dp.of_balance(e) - n_dn) / sum + dp.of_weights(e));
      dlogits[e] = g.accumulate ? dlogits[e] + d : d;
    }
    return;
  }
  float dot = 0;
  for (int64_t e = lane(); e < experts; e += kWarp) dot += p[e] * dp[e];
  dot = warp_sum(dot);
  const float z = static_cast<float>(g.z_coefficient * scale * 2 * per_token) * g.lse[s];
  for (int64_t e = lane(); e < experts; e += kWarp) {
    const float d = p[e] * (dp[e] - dot + z);
    dlogits[e] = g.accumulate ? dlogits[e] + d : d;
  }
}

__global__ void __launch_bounds__(kThreads)
    router_loads_kernel(const double* sums, int64_t experts, double* loads) {
  const int64_t e = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (e < experts) loads[e] = sums[router_sums_size(0) + e];
}

// Loads are whole numbers, whose sum no order changes.
__global__ void __launch_bounds__(kThreadsOfSums)
    router_move_bias_kernel(const double* loads, int64_t experts, double rate, float* bias) {
  double sum = 0;
  for (int64_t e = threadIdx.x; e < experts; e += kThreadsOfSums) sum += loads[e];
  const double mean = block_sum<kThreadsOfSums>(sum) / static_cast<double>(experts);
  for (int64_t e = threadIdx.x; e < experts; e += kThreadsOfSums) {
    if (loads[e] != mean) bias[e] += static_cast<float>(loads[e] < mean ? rate : -rate);
  }
}

template <bool gumbel>
__global__ void __launch_bounds__(kThreads)
    router_noise_kernel(LatePhilox rng, float* out, int64_t n, bool fits) {
  const int64_t block = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (4 * block >= n) return;
  const Philox::Block bits = rng.now().block(static_cast<uint64_t>(block));
  Values<float, 4> noise;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float u = Philox::to_uniform(bits[static_cast<size_t>(i)]);
    noise.v[i] = gumbel ? -logf(-logf(u)) : u;
  }
  if (fits && 4 * block + 4 <= n) return store(out + 4 * block, noise);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (4 * block + i < n) out[4 * block + i] = noise.v[i];
  }
}

template <bool gumbel>
void fill_noise(Purpose purpose, const RouterNoise& noise, float* out, int64_t n, Stream& stream) {
  const LatePhilox rng(noise.seed, purpose, noise.layer, noise.moment);
  launch(router_noise_kernel<gumbel>, blocks_for(n, 4 * kThreads), kThreads, 0, stream, rng, out, n,
         fit_lanes(0, out));
}

}  // namespace

template <Device D, class T>
void router_softmax(const RouterSoftmaxArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_softmax");
  launch(router_softmax_kernel, blocks_for(g.tokens, kWarps), kThreads, 0, stream, g);
}

template <Device D, class T>
void router_sigmoid(const RouterSigmoidArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_sigmoid");
  launch(router_sigmoid_kernel, blocks_for(g.tokens, kWarps), kThreads, 0, stream, g);
}

template <Device D, class T>
void router_choose_limited(const RouterLimitedChoiceArgs<T>& g, Arena&, Stream& stream) {
  const Span span(stream.profile(), "router_choose_limited");
  launch(router_choose_limited_kernel, blocks_for(g.tokens, kWarps), kThreads,
         kWarps * static_cast<size_t>(g.groups) * sizeof(Group), stream, g);
}

template <Device D, class T>
void router_choose(const RouterChooseArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_choose");
  launch(router_choose_kernel, blocks_for(g.tokens, kWarps), kThreads, 0, stream, g);
}

template <Device D, class T>
void router_assign(const RouterAssignArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "router_assign");
  const ArenaScope scope(workspace);
  auto* const candidates = workspace.take_on_device<int32_t>(g.tokens * g.top_k);
  auto* const of_group =
      g.groups == 1 ? g.counts_before : workspace.take_on_device<int32_t>(g.groups * g.experts);
  const auto experts = static_cast<unsigned>(g.experts), groups = static_cast<unsigned>(g.groups);
  launch(count_choices_kernel, dim3(experts, groups), kThreadsOfAssign, 0, stream, g, of_group);
  launch(assign_rows_kernel, experts, kThreadsOfAssign, 0, stream, g, of_group, candidates);
}

template <Device D, class T>
void router_weights(const RouterWeightArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_weights");
  launch(router_weights_kernel, blocks_for(g.tokens, kThreads), kThreads, 0, stream, g);
}

template <Device D, class T>
void router_means(const RouterMeanArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_means");
  const dim3 grid(static_cast<unsigned>(g.groups), blocks_for(g.experts, kWarp));
  launch(router_means_kernel, grid, kWarp * kWarpsOfMeans, 0, stream, g);
}

template <Device D, class T>
void router_token_losses(const RouterTokenLossArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_token_losses");
  launch(router_token_losses_kernel, 1, kThreadsOfSums, 0, stream, g);
}

template <Device D>
void router_balance(const RouterBalanceArgs& g, Stream& stream) {
  const Span span(stream.profile(), "router_balance");
  launch(router_balance_kernel, 1, kThreadsOfSums, 0, stream, g);
}

template <Device D>
void router_assignments(const double* fraction, int64_t experts, int64_t tokens, double* assignments,
                        Stream& stream) {
  const Span span(stream.profile(), "router_assignments");
  launch(router_assignments_kernel, blocks_for(experts, kThreads), kThreads, 0, stream, fraction, experts,
         static_cast<double>(tokens), assignments);
}

template <Device D>
void router_fractions(const RouterFractionArgs& g, Stream& stream) {
  const Span span(stream.profile(), "router_fractions");
  launch(router_fractions_kernel, 1, kThreadsOfSums, 0, stream, g);
}

template <Device D>
void router_statistics(const RouterStatisticsArgs& g, Stream& stream) {
  const Span span(stream.profile(), "router_statistics");
  launch(router_statistics_kernel, blocks_for(g.experts, kThreads), kThreads, 0, stream, g);
}

template <Device D>
void router_add_losses(const double* sums, double* total, Stream& stream) {
  const Span span(stream.profile(), "router_add_losses");
  launch(router_add_losses_kernel, 1, 1, 0, stream, sums, total);
}

template <Device D>
void router_loads(const double* sums, int64_t experts, double* loads, Stream& stream) {
  const Span span(stream.profile(), "router_loads");
  launch(router_loads_kernel, blocks_for(experts, kThreads), kThreads, 0, stream, sums, experts, loads);
}

template <Device D, class T>
void router_move_bias(const double* loads, int64_t experts, double rate, T* bias, Stream& stream) {
  const Span span(stream.profile(), "router_move_bias");
  launch(router_move_bias_kernel, 1, kThreadsOfSums, 0, stream, loads, experts, rate, bias);
}

template <Device D, class T>
void router_backward(const RouterGradArgs<T>& g, Arena&, Stream& stream) {
  const Span span(stream.profile(), "router_backward");
  const int64_t tokens = g.forward.tokens;
  if (tokens == 0) return;
  launch(router_backward_kernel, blocks_for(tokens, kWarps), kThreads, 0, stream, g,
         1.0 / static_cast<double>(tokens));
}

template <Device D>
void router_keys(const RouterNoise& noise, float* keys, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "router_keys");
  fill_noise<false>(Purpose::token_selection, noise, keys, n, stream);
}

template <Device D>
void router_gumbel(const RouterNoise& noise, float* gumbel, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "router_gumbel");
  fill_noise<true>(Purpose::router_gumbel, noise, gumbel, n, stream);
}

template void router_softmax<Device::cuda>(const RouterSoftmaxArgs<float>&, Stream&);
template void router_sigmoid<Device::cuda>(const RouterSigmoidArgs<float>&, Stream&);
template void router_choose_limited<Device::cuda>(const RouterLimitedChoiceArgs<float>&, Arena&, Stream&);
template void router_loads<Device::cuda>(const double*, int64_t, double*, Stream&);
template void router_move_bias<Device::cuda>(const double*, int64_t, double, float*, Stream&);
template void router_choose<Device::cuda>(const RouterChooseArgs<float>&, Stream&);
template void router_assign<Device::cuda>(const RouterAssignArgs<float>&, Arena&, Stream&);
template void router_weights<Device::cuda>(const RouterWeightArgs<float>&, Stream&);
template void router_means<Device::cuda>(const RouterMeanArgs<float>&, Stream&);
template void router_token_losses<Device::cuda>(const RouterTokenLossArgs<float>&, Stream&);
template void router_balance<Device::cuda>(const RouterBalanceArgs&, Stream&);
template void router_assignments<Device::cuda>(const double*, int64_t, int64_t, double*, Stream&);
template void router_fractions<Device::cuda>(const RouterFractionArgs&, Stream&);
template void router_statistics<Device::cuda>(const RouterStatisticsArgs&, Stream&);
template void router_add_losses<Device::cuda>(const double*, double*, Stream&);
template void router_backward<Device::cuda>(const RouterGradArgs<float>&, Arena&, Stream&);
template void router_keys<Device::cuda>(const RouterNoise&, float*, int64_t, Stream&);
template void router_gumbel<Device::cuda>(const RouterNoise&, float*, int64_t, Stream&);

}  // namespace ziggurat::kernels
