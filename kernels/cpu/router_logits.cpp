#include <algorithm>
#include <array>

#include <ziggurat/kernels/router_logits.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kBlock = 16384;              // elements a thread takes at once
constexpr int64_t kTile = 4 * Philox::kBatch;  // elements of a tile
static_assert(kBlock % kTile == 0);

// each(first, size, noise [size]) over tiles of [0, n), element 0 being `of_whole`; noise is 1 where eps is
// 0.
template <class A, class F>
void for_each_tile(int64_t n, double eps, const LatePhilox& rng, int64_t of_whole, const F& each) {
  parallel_for_blocks(n, kBlock, [&](int64_t begin, int64_t end) {
    std::array<uint32_t, kTile> bits;
    A noise[kTile];
    std::fill(noise, noise + kTile, A(1));
    for (int64_t first = begin; first < end; first += kTile) {
      if (eps > 0) {
        rng.now().blocks(static_cast<uint64_t>((of_whole + first) / 4), bits);
        for (int64_t i = 0; i < kTile; ++i) {
          noise[i] = A(1) + A(eps) * (A(2) * A(Philox::to_uniform(bits[i])) - A(1));
        }
      }
      each(first, std::min(kTile, end - first), noise);
    }
  });
}

}  // namespace

template <Device D, class T>
void router_input_forward(const RouterInputArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_input_forward");
  using A = Accum<T>;
  for_each_tile<A>(g.n, g.jitter_eps, g.rng, g.first, [&](int64_t first, int64_t size, const A* noise) {
    const T* x = g.x + first;
    A* y = g.y + first;
    for (int64_t i = 0; i < size; ++i) y[i] = A(x[i]) * noise[i];
  });
}

template <Device D, class T>
void router_input_backward(const RouterInputGradArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_input_backward");
  using A = Accum<T>;
  for_each_tile<A>(g.n, g.jitter_eps, g.rng, g.first, [&](int64_t first, int64_t size, const A* noise) {
    const A* dy = g.dy + first;
    T* dx = g.dx + first;
    if (g.accumulate_dx) {
      for (int64_t i = 0; i < size; ++i) dx[i] = T(A(dx[i]) + dy[i] * noise[i]);
    } else {
      for (int64_t i = 0; i < size; ++i) dx[i] = T(dy[i] * noise[i]);
    }
  });
}

template void router_input_forward<Device::cpu>(const RouterInputArgs<float>&, Stream&);
template void router_input_forward<Device::cpu>(const RouterInputArgs<bf16>&, Stream&);
template void router_input_forward<Device::cpu>(const RouterInputArgs<double>&, Stream&);
template void router_input_backward<Device::cpu>(const RouterInputGradArgs<float>&, Stream&);
template void router_input_backward<Device::cpu>(const RouterInputGradArgs<bf16>&, Stream&);
template void router_input_backward<Device::cpu>(const RouterInputGradArgs<double>&, Stream&);

}  // namespace ziggurat::kernels
