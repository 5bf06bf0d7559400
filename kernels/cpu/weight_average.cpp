#include <algorithm>
#include <cmath>

#include <ziggurat/kernels/weight_average.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

template <Device D, class T>
void weight_average(const WeightAverageArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "weight_average");
  constexpr int64_t kBlock = 16384;  // elements a thread takes at once
  const double decay = std::min(g.decay, 1 - 1 / static_cast<double>(g.step));
  parallel_for_blocks(g.n, kBlock, [&](int64_t begin, int64_t end) {
    if (!std::isfinite(*g.grad_scale)) return;
    const T share = T(1 - decay);
    for (int64_t i = begin; i < end; ++i) g.average[i] += share * (g.weight[i] - g.average[i]);
  });
}

template void weight_average<Device::cpu>(const WeightAverageArgs<float>&, Stream&);
template void weight_average<Device::cpu>(const WeightAverageArgs<double>&, Stream&);

}  // namespace ziggurat::kernels
