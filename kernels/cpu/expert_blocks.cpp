#include <ziggurat/kernels/expert_blocks.h>
#include <ziggurat/runtime/dry_run.h>

namespace ziggurat::kernels {

template <Device D>
void expert_blocks(const ExpertBlocksArgs& g, Stream& stream) {
  const Span span(stream.profile(), "expert_blocks");
  if (DryRun::on()) return;
  for (int64_t i = 0; i < g.tokens * g.top_k; ++i) {
    const int64_t e = g.expert[i], row = g.row_of_choice[i];
    g.place_of_choice[i] = row < 0 ? -1 : static_cast<int32_t>(e * g.capacity + row - g.offsets[e]);
  }
  for (int64_t e = 0; e < g.experts; ++e) {
    for (int64_t i = 0; i < g.capacity; ++i) {
      const int64_t row = g.offsets[e] + i, place = e * g.capacity + i;
      const bool taken = row < g.offsets[e + 1];
      g.token_of_place[place] = taken ? g.token_of_row[row] : -1;
      g.choice_of_place[place] = taken ? g.choice_of_row[row] : -1;
    }
  }
}

template void expert_blocks<Device::cpu>(const ExpertBlocksArgs&, Stream&);

}  // namespace ziggurat::kernels
