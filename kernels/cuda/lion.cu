// One thread updates four values, by 16 bytes of each array, or one where sizes or addresses are no multiple
// of that. Floor: memory; 20 n bytes (22 with the bf16 copy), 10 FLOPs a value.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>

#include <ziggurat/kernels/lion.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;

// Rounded once; but for the clip factor, which the host does not know.
struct Factors {
  explicit Factors(const LionArgs<float>& g)
      : beta1(static_cast<float>(g.beta1)),
        rest1(static_cast<float>(1 - g.beta1)),
        beta2(static_cast<float>(g.beta2)),
        rest2(static_cast<float>(1 - g.beta2)),
        keep(static_cast<float>(1 - g.lr * g.weight_decay)),
        lr(static_cast<float>(g.lr)) {}
  float beta1, rest1, beta2, rest2, keep, lr;
};

template <int N>
__global__ void __launch_bounds__(kThreads) lion_kernel(LionArgs<float> g, Factors f) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= g.n || !is_finite(*g.grad_scale)) return;
  const auto scale = static_cast<float>(*g.grad_scale);
  const Values<float, N> gradient = load<N>(g.gradient + at);
  Values<float, N> m = load<N>(g.moment + at), p = load<N>(g.master + at);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float grad = scale * gradient.v[i], u = f.beta1 * m.v[i] + f.rest1 * grad;
    const float sign = static_cast<float>(u > 0) - static_cast<float>(u < 0);
    p.v[i] = f.keep * p.v[i] - f.lr * sign;
    m.v[i] = f.beta2 * m.v[i] + f.rest2 * grad;
  }
  store(g.moment + at, m);
  store(g.master + at, p);
  if (g.compute != nullptr) store_rounded(g.compute + at, p);
}

}  // namespace

template <Device D, class T>
void lion_update(const LionArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "lion_update");
  const Factors factors(g);
  if (fit_lanes(g.n, g.gradient, g.master, g.moment) && fit_rounded(g.compute)) {
    launch(lion_kernel<4>, blocks_for(g.n, kThreads * 4), kThreads, 0, stream, g, factors);
  } else {
    launch(lion_kernel<1>, blocks_for(g.n, kThreads), kThreads, 0, stream, g, factors);
  }
}

template void lion_update<Device::cuda>(const LionArgs<float>&, Stream&);

}  // namespace ziggurat::kernels
