// Weights of the chosen experts, losses, statistics and backward of a router. A warp takes a token's values;
// the second time they are read they come from the cache. Floor: memory; backward 12 S E bytes (16 S E where
// it adds up) and 6 FLOPs a value. The sums in double are one block each, a launch's time: they read 8 S
// bytes at most, and else some numbers for each expert.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/token_warp.h>

#include <ziggurat/kernels/router.h>

namespace ziggurat::kernels {

namespace {

constexpr float kEpsilon = 0x1p-23f;  // of float

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

__global__ void __launch_bounds__(kTokenThreads) router_weights_kernel(RouterWeightArgs<float> g) {
  const int64_t s = int64_t{blockIdx.x} * kTokenThreads + threadIdx.x;
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

__global__ void __launch_bounds__(kTokenThreads)
    router_assignments_kernel(const double* fraction, int64_t experts, double tokens, double* assignments) {
  const int64_t e = int64_t{blockIdx.x} * kTokenThreads + threadIdx.x;
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

__global__ void __launch_bounds__(kTokenThreads) router_statistics_kernel(RouterStatisticsArgs g) {
  const int64_t e = int64_t{blockIdx.x} * kTokenThreads + threadIdx.x;
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
__global__ void __launch_bounds__(kTokenThreads)
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

__global__ void __launch_bounds__(kTokenThreads)
    router_loads_kernel(const double* sums, int64_t experts, double* loads) {
  const int64_t e = int64_t{blockIdx.x} * kTokenThreads + threadIdx.x;
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

}  // namespace

template <Device D, class T>
void router_weights(const RouterWeightArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_weights");
  launch(router_weights_kernel, blocks_for(g.tokens, kTokenThreads), kTokenThreads, 0, stream, g);
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
  launch(router_assignments_kernel, blocks_for(experts, kTokenThreads), kTokenThreads, 0, stream, fraction,
         experts, static_cast<double>(tokens), assignments);
}

template <Device D>
void router_fractions(const RouterFractionArgs& g, Stream& stream) {
  const Span span(stream.profile(), "router_fractions");
  launch(router_fractions_kernel, 1, kThreadsOfSums, 0, stream, g);
}

template <Device D>
void router_statistics(const RouterStatisticsArgs& g, Stream& stream) {
  const Span span(stream.profile(), "router_statistics");
  launch(router_statistics_kernel, blocks_for(g.experts, kTokenThreads), kTokenThreads, 0, stream, g);
}

template <Device D>
void router_add_losses(const double* sums, double* total, Stream& stream) {
  const Span span(stream.profile(), "router_add_losses");
  launch(router_add_losses_kernel, 1, 1, 0, stream, sums, total);
}

template <Device D>
void router_loads(const double* sums, int64_t experts, double* loads, Stream& stream) {
  const Span span(stream.profile(), "router_loads");
  launch(router_loads_kernel, blocks_for(experts, kTokenThreads), kTokenThreads, 0, stream, sums, experts,
         loads);
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
  launch(router_backward_kernel, blocks_for(tokens, kTokenWarps), kTokenThreads, 0, stream, g,
         1.0 / static_cast<double>(tokens));
}

template void router_weights<Device::cuda>(const RouterWeightArgs<float>&, Stream&);
template void router_means<Device::cuda>(const RouterMeanArgs<float>&, Stream&);
template void router_token_losses<Device::cuda>(const RouterTokenLossArgs<float>&, Stream&);
template void router_balance<Device::cuda>(const RouterBalanceArgs&, Stream&);
template void router_assignments<Device::cuda>(const double*, int64_t, int64_t, double*, Stream&);
template void router_fractions<Device::cuda>(const RouterFractionArgs&, Stream&);
template void router_statistics<Device::cuda>(const RouterStatisticsArgs&, Stream&);
template void router_add_losses<Device::cuda>(const double*, double*, Stream&);
template void router_loads<Device::cuda>(const double*, int64_t, double*, Stream&);
template void router_move_bias<Device::cuda>(const double*, int64_t, double, float*, Stream&);
template void router_backward<Device::cuda>(const RouterGradArgs<float>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
