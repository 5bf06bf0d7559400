// One thread updates four values, by 16 bytes of each array, or one where sizes or addresses are no multiple
// of that. Floor: memory; 28 n bytes (30 with the bf16 copy), 15 FLOPs, a root and a division a value: 0.5
// FLOP a byte.
#include <cmath>

#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>

#include <ziggurat/kernels/adamw.h>
#include <ziggurat/kernels/stochastic_rounding.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;

// The factors of one update, rounded once; but for the clip factor, which the host does not know.
struct Factors {
  template <class P, class M>
  explicit Factors(const AdamWArgs<float, P, M>& g)
      : beta1(static_cast<float>(g.beta1)),
        rest1(static_cast<float>(1 - g.beta1)),
        beta2(static_cast<float>(g.beta2)),
        rest2(static_cast<float>(1 - g.beta2)),
        keep(static_cast<float>(1 - g.lr * g.weight_decay)),
        // -expm1(t log(beta)) = 1 - beta^t without cancellation for beta near 1
        step_size(static_cast<float>(g.lr / -std::expm1(static_cast<double>(g.step) * std::log(g.beta1)))),
        inverse_root2(
            static_cast<float>(1 / std::sqrt(-std::expm1(static_cast<double>(g.step) * std::log(g.beta2))))),
        eps(static_cast<float>(g.eps)) {}
  float beta1, rest1, beta2, rest2, keep, step_size, inverse_root2, eps;
};

template <int N>
__global__ void __launch_bounds__(kThreads) adamw_kernel(AdamWArgs<float> g, Factors f) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= g.n || !is_finite(*g.grad_scale)) return;
  const auto scale = static_cast<float>(*g.grad_scale);
  const Values<float, N> gradient = load<N>(g.gradient + at);
  Values<float, N> m = load<N>(g.moment1 + at), v = load<N>(g.moment2 + at), p = load<N>(g.master + at);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float grad = scale * gradient.v[i];
    m.v[i] = f.beta1 * m.v[i] + f.rest1 * grad;
    v.v[i] = f.beta2 * v.v[i] + f.rest2 * grad * grad;
    p.v[i] = f.keep * p.v[i] - f.step_size * m.v[i] / (sqrtf(v.v[i]) * f.inverse_root2 + f.eps);
  }
  store(g.moment1 + at, m);
  store(g.moment2 + at, v);
  store(g.master + at, p);
  if (g.compute != nullptr) store_rounded(g.compute + at, p);
}

__device__ __forceinline__ void put(float value, unsigned, float& to) { to = value; }
__device__ __forceinline__ void put(float value, unsigned random, bf16& to) {
  to = round_stochastically(value, random);
}

// Where masters or moments are bf16: one thread for the two values that share a block of Philox.
template <class P, class M>
__global__ void __launch_bounds__(kThreads) rounding_kernel(AdamWArgs<float, P, M> g, Factors f) {
  const uint64_t block = g.first / 2 + uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (!is_finite(*g.grad_scale)) return;
  const auto scale = static_cast<float>(*g.grad_scale);
  const Philox::Block words = g.random.block(block);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t i = static_cast<int64_t>(2 * block + half - g.first);
    if (i < 0 || i >= g.n) continue;
    const RoundingBits random = rounding_bits(words[2 * half], words[2 * half + 1]);
    const float grad = scale * g.gradient[i];
    const float m = f.beta1 * to_float(g.moment1[i]) + f.rest1 * grad;
    const float v = f.beta2 * to_float(g.moment2[i]) + f.rest2 * grad * grad;
    const float p = f.keep * to_float(g.master[i]) - f.step_size * m / (sqrtf(v) * f.inverse_root2 + f.eps);
    put(m, random.moment1, g.moment1[i]);
    put(v, random.moment2, g.moment2[i]);
    put(p, random.master, g.master[i]);
    if constexpr (std::is_same_v<P, float>) {
      if (g.compute != nullptr) g.compute[i] = rounded<bf16>(p);
    }
  }
}

}  // namespace

template <Device D, class T, class P, class M>
void adamw_update(const AdamWArgs<T, P, M>& g, Stream& stream) {
  const Span span(stream.profile(), "adamw_update");
  const Factors factors(g);
  if constexpr (!std::is_same_v<P, T> || !std::is_same_v<M, T>) {
    if (g.n == 0) return;
    const int64_t pairs = (g.n + static_cast<int64_t>(g.first % 2) + 1) / 2;
    launch(rounding_kernel<P, M>, blocks_for(pairs, kThreads), kThreads, 0, stream, g, factors);
  } else if (fit_lanes(g.n, g.gradient, g.master, g.moment1, g.moment2) && fit_rounded(g.compute)) {
    launch(adamw_kernel<4>, blocks_for(g.n, kThreads * 4), kThreads, 0, stream, g, factors);
  } else {
    launch(adamw_kernel<1>, blocks_for(g.n, kThreads), kThreads, 0, stream, g, factors);
  }
}

template void adamw_update<Device::cuda>(const AdamWArgs<float>&, Stream&);
template void adamw_update<Device::cuda>(const AdamWArgs<float, float, bf16>&, Stream&);
template void adamw_update<Device::cuda>(const AdamWArgs<float, bf16, float>&, Stream&);
template void adamw_update<Device::cuda>(const AdamWArgs<float, bf16, bf16>&, Stream&);

}  // namespace ziggurat::kernels
