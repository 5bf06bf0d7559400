#include <cstring>
#include <numeric>

#include <ziggurat/moe/moe_stats.h>
#include <ziggurat/tensor/host_values.h>

namespace ziggurat::moe {

MoeSums moe_sums(std::span<const double> values) {
  kernels::RouterSums of_layer;
  std::memcpy(&of_layer, values.data(), sizeof(of_layer));
  const auto before = values.begin() + kernels::router_sums_size(0);
  const auto counts = before + (values.end() - before) / 2;
  MoeSums sums;
  sums.counts_before.assign(before, counts);
  sums.counts.assign(counts, values.end());
  sums.tokens = static_cast<int64_t>(of_layer.tokens);
  sums.choices = static_cast<int64_t>(of_layer.choices);
  sums.dropped = sums.choices - std::accumulate(sums.counts.begin(), sums.counts.end(), int64_t{0});
  sums.micro_batches = static_cast<int64_t>(of_layer.micro_batches);
  sums.entropy = of_layer.entropy;
  sums.balance = of_layer.balance;
  sums.z = of_layer.z;
  return sums;
}

MoeSums MoeStats::read(Stream& stream) const { return moe_sums(host_values(sums_, stream)); }

int64_t numbers_told(const std::vector<MoeStats*>& layers) {
  int64_t n = 0;
  for (const MoeStats* layer : layers) n += layer->sums().numel();
  return n;
}

}  // namespace ziggurat::moe
