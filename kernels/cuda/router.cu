// From a router's logits to each token's choices. A warp takes a token of E logits; the second time they are
// read they come from the cache, or, where choices are limited to groups of experts, from shared memory.
// Floor: memory; softmax 8 S E bytes, one exponential and 6 FLOPs a value; choose 4 S E (8 S E with noise);
// keys and gumbel 4 S E to write and 15 integer operations a value.
#include <kernels/cuda/device/dynamic_shared.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/token_warp.h>

#include <ziggurat/core/philox.h>
#include <ziggurat/kernels/router.h>

namespace ziggurat::kernels {

namespace {

__global__ void __launch_bounds__(kTokenThreads) router_softmax_kernel(RouterSoftmaxArgs<float> g) {
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

__global__ void __launch_bounds__(kTokenThreads) router_sigmoid_kernel(RouterSigmoidArgs<float> g) {
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

__global__ void __launch_bounds__(kTokenThreads) router_choose_kernel(RouterChooseArgs<float> g) {
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
// What a token's warp keeps in shared memory: its scores with the bias, its groups, its choices.
__host__ __device__ constexpr size_t bytes_of_limited(int64_t experts, int64_t groups, int64_t top_k) {
  return static_cast<size_t>(groups) * sizeof(Group) + static_cast<size_t>(experts) * sizeof(float) +
         static_cast<size_t>(top_k) * sizeof(int32_t);
}

// A block has as many tokens as it has warps.
__global__ void __launch_bounds__(kTokenThreads)
    router_choose_limited_kernel(RouterLimitedChoiceArgs<float> g) {
  const int64_t s = int64_t{blockIdx.x} * (static_cast<int>(blockDim.x) / kWarp) + warp();
  if (s >= g.tokens) return;
  const int experts = static_cast<int>(g.experts), groups = static_cast<int>(g.groups),
            top_k = static_cast<int>(g.top_k), size = experts / groups;
  auto* const own = dynamic_shared<unsigned char>() + warp() * bytes_of_limited(experts, groups, top_k);
  auto* const of_group = reinterpret_cast<Group*>(own);
  auto* const score = reinterpret_cast<float*>(of_group + groups);
  auto* const chosen = reinterpret_cast<int32_t*>(score + experts);
  for (int e = lane(); e < experts; e += kWarp) {
    const float of_token = g.scores[s * experts + e];
    score[e] = g.bias == nullptr ? of_token : of_token + g.bias[e];
  }
  __syncwarp();
  const bool limited = g.chosen_groups < g.groups;
  for (int group = 0; limited && group < groups; ++group) {
    const auto of_expert = [&](int e) { return score[group * size + e]; };
    int second = -1;
    float sum = 0;
    // Of the best two at most: what a group is judged by is the caller's choice between one and two.
    for (int i = 0; i < min(static_cast<int>(g.best_of_group), size); ++i) {
      const int best = best_of_rest(size, of_expert, [&](int e) { return e == second; });
      sum += of_expert(best);
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
    return !limited || of_group[e / size].chosen != 0 ? score[e] : Maximum::kNeutral<float>;
  };
  choose_best(experts, top_k, value, chosen);
  for (int j = lane(); j < top_k; j += kWarp) g.expert[s * top_k + j] = chosen[j];
}

template <bool gumbel>
__global__ void __launch_bounds__(kTokenThreads)
    router_noise_kernel(LatePhilox rng, float* out, int64_t n, bool fits) {
  const int64_t block = int64_t{blockIdx.x} * kTokenThreads + threadIdx.x;
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
  launch(router_noise_kernel<gumbel>, blocks_for(n, 4 * kTokenThreads), kTokenThreads, 0, stream, rng, out, n,
         fit_lanes(0, out));
}

}  // namespace

template <Device D, class T>
void router_softmax(const RouterSoftmaxArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_softmax");
  launch(router_softmax_kernel, blocks_for(g.tokens, kTokenWarps), kTokenThreads, 0, stream, g);
}

template <Device D, class T>
void router_sigmoid(const RouterSigmoidArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_sigmoid");
  launch(router_sigmoid_kernel, blocks_for(g.tokens, kTokenWarps), kTokenThreads, 0, stream, g);
}

template <Device D, class T>
void router_choose_limited(const RouterLimitedChoiceArgs<T>& g, Arena&, Stream& stream) {
  const Span span(stream.profile(), "router_choose_limited");
  constexpr size_t kBytes = 48 * 1024;  // of a block, that any GPU has
  const size_t of_token = bytes_of_limited(g.experts, g.groups, g.top_k);
  const auto tokens = static_cast<unsigned>(of_token * kTokenWarps <= kBytes ? kTokenWarps
                                            : of_token < kBytes              ? kBytes / of_token
                                                                             : 1);
  launch(router_choose_limited_kernel, blocks_for(g.tokens, tokens), tokens * kWarp, tokens * of_token,
         stream, g);
}

template <Device D, class T>
void router_choose(const RouterChooseArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_choose");
  launch(router_choose_kernel, blocks_for(g.tokens, kTokenWarps), kTokenThreads, 0, stream, g);
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
template void router_choose<Device::cuda>(const RouterChooseArgs<float>&, Stream&);
template void router_keys<Device::cuda>(const RouterNoise&, float*, int64_t, Stream&);
template void router_gumbel<Device::cuda>(const RouterNoise&, float*, int64_t, Stream&);

}  // namespace ziggurat::kernels
