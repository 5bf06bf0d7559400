// One block adds up all parts. Floor: the latency of a few loads one after another; parts are as many as a
// model's parameters and experts.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/clip.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) clip_kernel(ClipArgs g) {
  double sum = 0, loss = 0;
  int wrong = 0;
  for (int64_t i = threadIdx.x; i < g.n; i += kThreads) sum += g.squares[i];
  for (int64_t i = threadIdx.x; i < g.losses; i += kThreads) {
    const double one = g.loss[i];
    wrong += is_finite(one) ? 0 : 1;
    loss += i % g.parts == 0 ? one : 0;
  }
  sum = block_sum<kThreads>(sum);
  wrong = block_sum<kThreads>(wrong);
  loss = block_sum<kThreads>(loss);
  if (threadIdx.x > 0) return;
  const double norm = sqrt(sum);
  g.clipped[0] = norm;
  double scale = 1;
  if (g.max_norm > 0 && norm > g.max_norm) scale = g.max_norm / norm;
  const bool within = norm <= g.most_norm && loss <= g.most_loss;
  g.clipped[1] = wrong == 0 && is_finite(norm) && within ? scale : nan("");
}

}  // namespace

template <Device D>
void clip(const ClipArgs& g, Stream& stream) {
  const Span span(stream.profile(), "clip");
  launch(clip_kernel, 1, kThreads, 0, stream, g);
}

template void clip<Device::cuda>(const ClipArgs&, Stream&);

}  // namespace ziggurat::kernels
