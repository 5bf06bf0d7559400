#include <cmath>

#include <ziggurat/kernels/lion.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {
constexpr int64_t kBlock = 16384;  // elements: some ten microseconds
}

template <Device D, class T>
void lion_update(const LionArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "lion_update");
  if (DryRun::on() || !std::isfinite(*g.grad_scale)) return;
  const T scale = T(*g.grad_scale), beta1 = T(g.beta1), rest1 = T(1 - g.beta1), beta2 = T(g.beta2),
          rest2 = T(1 - g.beta2), keep = T(1 - g.lr * g.weight_decay), lr = T(g.lr);
  parallel_for_blocks(g.n, kBlock, [&](int64_t begin, int64_t end) {
    const T* __restrict gradient = g.gradient;
    T* __restrict p = g.master;
    T* __restrict m = g.moment;
    for (int64_t i = begin; i < end; ++i) {
      const T grad = scale * gradient[i], u = beta1 * m[i] + rest1 * grad;
      p[i] = keep * p[i] - lr * (T(u > 0) - T(u < 0));
      m[i] = beta2 * m[i] + rest2 * grad;
    }
    for (int64_t i = begin; g.compute != nullptr && i < end; ++i)
      g.compute[i] = bf16(static_cast<float>(p[i]));
  });
}

template void lion_update<Device::cpu>(const LionArgs<float>&, Stream&);
template void lion_update<Device::cpu>(const LionArgs<double>&, Stream&);

}  // namespace ziggurat::kernels
