// One thread averages four values, by 16 bytes of each array, or one where sizes or addresses are no multiple
// of that. Floor: memory; 12 n bytes, 3 FLOPs a value.
#include <algorithm>

#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>

#include <ziggurat/kernels/weight_average.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;

template <int N>
__global__ void __launch_bounds__(kThreads) weight_average_kernel(WeightAverageArgs<float> g, float share) {
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= g.n || !is_finite(*g.grad_scale)) return;
  const Values<float, N> weight = load<N>(g.weight + at);
  Values<float, N> average = load<N>(g.average + at);
#pragma unroll
  for (int i = 0; i < N; ++i) average.v[i] += share * (weight.v[i] - average.v[i]);
  store(g.average + at, average);
}

}  // namespace

template <Device D, class T>
void weight_average(const WeightAverageArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "weight_average");
  const auto share = static_cast<float>(1 - std::min(g.decay, 1 - 1 / static_cast<double>(g.step)));
  if (fit_lanes(g.n, g.weight, static_cast<const T*>(g.average))) {
    launch(weight_average_kernel<4>, blocks_for(g.n, kThreads * 4), kThreads, 0, stream, g, share);
  } else {
    launch(weight_average_kernel<1>, blocks_for(g.n, kThreads), kThreads, 0, stream, g, share);
  }
}

template void weight_average<Device::cuda>(const WeightAverageArgs<float>&, Stream&);

}  // namespace ziggurat::kernels
