#include <algorithm>

#include <ziggurat/moe/moe_stats.h>

namespace ziggurat::moe {

void MoeStats::reset() {
  const int64_t same_layer = layer;
  const size_t experts = counts.size();
  *this = {};
  layer = same_layer;
  counts_before.assign(experts, 0);
  counts.assign(experts, 0);
}

void MoeStats::add(const ops::Routing& r) {
  for (size_t e = 0; e < counts.size(); ++e) {
    counts_before[e] += r.counts_before[e];
    counts[e] += r.counts[e];
  }
  tokens += r.tokens;
  choices += r.tokens * r.top_k;
  dropped += r.dropped();
  ++micro_batches;
  entropy_sum += r.entropy * static_cast<double>(r.tokens);
  balance_sum += r.balance();
  z_sum += r.z;
}

}  // namespace ziggurat::moe
