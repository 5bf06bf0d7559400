// A thread a choice, then a thread a place, neighbours side by side. Floor: memory; 12 bytes a choice, 16 a
// place.
#include <kernels/cuda/device/launch.h>

#include <ziggurat/kernels/expert_blocks.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) expert_blocks_kernel(ExpertBlocksArgs g) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < g.tokens * g.top_k) {
    const int64_t e = g.expert[i], row = g.row_of_choice[i];
    g.place_of_choice[i] = row < 0 ? -1 : static_cast<int32_t>(e * g.capacity + row - g.offsets[e]);
  }
  if (i < g.experts * g.capacity) {
    const int64_t e = i / g.capacity, row = g.offsets[e] + i % g.capacity;
    const bool taken = row < g.offsets[e + 1];
    g.token_of_place[i] = taken ? g.token_of_row[row] : -1;
    g.choice_of_place[i] = taken ? g.choice_of_row[row] : -1;
  }
}

}  // namespace

template <Device D>
void expert_blocks(const ExpertBlocksArgs& g, Stream& stream) {
  const Span span(stream.profile(), "expert_blocks");
  const int64_t choices = g.tokens * g.top_k, places = g.experts * g.capacity;
  launch(expert_blocks_kernel, blocks_for(choices > places ? choices : places, kThreads), kThreads, 0, stream,
         g);
}

template void expert_blocks<Device::cuda>(const ExpertBlocksArgs&, Stream&);

}  // namespace ziggurat::kernels
