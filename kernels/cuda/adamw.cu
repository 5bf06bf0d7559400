// One thread updates four values, by 16 bytes of each array, or one where sizes or addresses are no multiple
// of that. Floor: memory; 28 n bytes (30 with the bf16 copy), 15 FLOPs, a root and a division a value: 0.5
// FLOP a byte.
#include <cmath>

#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>

#include <ziggurat/kernels/adamw.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;

// The factors of one update, rounded once.
struct Factors {
  explicit Factors(const AdamWArgs<float>& g)
      : scale(static_cast<float>(g.grad_scale)),
        beta1(static_cast<float>(g.beta1)),
        rest1(static_cast<float>(1 - g.beta1)),
        beta2(static_cast<float>(g.beta2)),
        rest2(static_cast<float>(1 - g.beta2)),
        keep(static_cast<float>(1 - g.lr * g.weight_decay)),
        // -expm1(t log(beta)) = 1 - beta^t without cancellation for beta near 1
        step_size(static_cast<float>(g.lr / -std::expm1(static_cast<double>(g.step) * std::log(g.beta1)))),
        inverse_root2(
            static_cast<float>(1 / std::sqrt(-std::expm1(static_cast<double>(g.step) * std::log(g.beta2))))),
        eps(static_cast<float>(g.eps)) {}
  float scale, beta1, rest1, beta2, rest2, keep, step_size, inverse_root2, eps;
};

template <int N>
__global__ void __launch_bounds__(kThreads) adamw_kernel(AdamWArgs<float> g, Factors f) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= g.n) return;
  const Values<float, N> gradient = load<N>(g.gradient + at);
  Values<float, N> m = load<N>(g.moment1 + at), v = load<N>(g.moment2 + at), p = load<N>(g.master + at);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float grad = f.scale * gradient.v[i];
    m.v[i] = f.beta1 * m.v[i] + f.rest1 * grad;
    v.v[i] = f.beta2 * v.v[i] + f.rest2 * grad * grad;
    p.v[i] = f.keep * p.v[i] - f.step_size * m.v[i] / (sqrtf(v.v[i]) * f.inverse_root2 + f.eps);
  }
  store(g.moment1 + at, m);
  store(g.moment2 + at, v);
  store(g.master + at, p);
  if (g.compute == nullptr) return;
  if constexpr (N == 1) {
    g.compute[at] = rounded<bf16>(p.v[0]);
  } else {
    const auto pair = [&](int i) {
      return static_cast<unsigned>(rounded<bf16>(p.v[i]).bits) |
             static_cast<unsigned>(rounded<bf16>(p.v[i + 1]).bits) << 16;
    };
    *reinterpret_cast<uint2*>(g.compute + at) = make_uint2(pair(0), pair(2));
  }
}

}  // namespace

template <Device D, class T>
void adamw_update(const AdamWArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "adamw_update");
  const Factors factors(g);
  if (fit_lanes(g.n, g.gradient, g.master, g.moment1, g.moment2) &&
      reinterpret_cast<uintptr_t>(g.compute) % 8 == 0) {
    launch(adamw_kernel<4>, blocks_for(g.n, kThreads * 4), kThreads, 0, stream, g, factors);
  } else {
    launch(adamw_kernel<1>, blocks_for(g.n, kThreads), kThreads, 0, stream, g, factors);
  }
}

template void adamw_update<Device::cuda, float>(const AdamWArgs<float>&, Stream&);

}  // namespace ziggurat::kernels
