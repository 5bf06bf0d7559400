#include <algorithm>

#include <ziggurat/tensor/host_values.h>
#include <ziggurat/train/layer_loads.h>

namespace ziggurat::train {

int64_t bytes_of_layer_loads(const model::Gpt& model) {
  return moe::numbers_told(model.moe_stats()) * size_of(DType::f64) + Arena::kAlignment;
}

std::vector<LayerLoad> layer_loads(const Training& training, Executor& executor) {
  const std::vector<moe::MoeStats*> layers = training.model.moe_stats();
  if (layers.empty()) return {};
  Stream& stream = executor.stream;
  const ArenaScope scope(executor.numbers);
  const Tensor all = allocate(executor.numbers, DType::f64, {moe::numbers_told(layers)});
  int64_t next = 0;
  for (const moe::MoeStats* stats : layers) {
    copy(stats->sums(), all.rows(next, next + stats->sums().numel()), stream);
    next += stats->sums().numel();
  }
  training.groups.dp().all_reduce(all, ReduceOp::sum, ReduceOrder::any, stream).wait();
  training.groups.world().watch(stream);
  const std::vector<double> values = host_values(all, stream);

  std::vector<LayerLoad> loads;
  std::span<const double> rest(values);
  for (const moe::MoeStats* stats : layers) {
    const auto size = static_cast<size_t>(stats->sums().numel());
    const moe::MoeSums sums = moe::moe_sums(rest.first(size));
    rest = rest.subspan(size);
    const auto tokens = static_cast<double>(sums.tokens), choices = static_cast<double>(sums.choices),
               micro_batches = static_cast<double>(sums.micro_batches);
    LayerLoad load;
    load.layer = stats->layer();
    load.entropy = sums.entropy / tokens;
    load.balance_loss = sums.balance / micro_batches;
    load.z_loss = sums.z / micro_batches;
    load.drop_rate = static_cast<double>(sums.dropped) / choices;
    load.tokens_per_expert.assign(sums.counts_before.begin(), sums.counts_before.end());
    double busiest = 0;
    for (const double n : load.tokens_per_expert) busiest = std::max(busiest, n);
    load.imbalance = busiest * static_cast<double>(load.tokens_per_expert.size()) / choices;
    loads.push_back(std::move(load));
  }
  return loads;
}

}  // namespace ziggurat::train
