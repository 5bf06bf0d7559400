#include <algorithm>
#include <cmath>
#include <numeric>

#include <ziggurat/moe/router.h>
#include <ziggurat/ops/router_logits.h>

namespace ziggurat::moe {

Router::Router(nn::ParamStore& store, const std::string& name, const MoeConfig& config, int64_t hidden,
               int64_t experts, int64_t layer, Communicator& data_parallel)
    : config_(config), layer_(layer), data_parallel_(data_parallel) {
  check(config.top_k <= experts, ErrorKind::config, "{}: moe.top_k is {}, but the layer has {} experts", name,
        config.top_k, experts);
  if (store.options().reproducible == Reproducible::strict) check_strict(config);
  const double half_width = 1.0 / std::sqrt(static_cast<double>(hidden));  // as torch.nn.Linear in DeepSpeed
  weight_ = &store.add({.name = name + ".weight",
                        .global_shape = {experts, hidden},
                        .init = nn::Init::uniform(half_width),
                        .matrix = false});
  stats_.layer = layer;
  stats_.counts.resize(static_cast<size_t>(experts));
  stats_.reset();
}

ops::Routing Router::operator()(Tape& tape, Var x, int64_t sequence_length) {
  const MicroBatch& micro_batch = tape.micro_batch();
  const double loss_scale = 1.0 / static_cast<double>(micro_batch.count);  // the step's loss is a mean
  ops::RouterArgs args;
  args.top_k = config_.top_k;
  args.drop = config_.drop;
  args.order = config_.slot_order;
  args.capacity_rule = config_.capacity_rule;
  args.capacity_factor = config_.capacity_factor;
  args.eval_capacity_factor = config_.eval_capacity_factor;
  args.min_capacity = config_.min_capacity;
  args.renormalise = config_.renormalise;
  args.noise = config_.choice_noise;
  args.balance_count = config_.balance_count;
  args.balance_scope = config_.balance_scope;
  args.sequence_length = sequence_length;
  args.balance_coefficient = config_.balance_coefficient * loss_scale;
  args.z_coefficient = config_.z_coefficient * loss_scale;
  args.layer = static_cast<uint64_t>(layer_);

  const Var logits = ops::router_logits(tape, x, *weight_, nullptr, config_.jitter, layer_);
  const ops::Routing routing = ops::route(tape, logits, args);
  if (config_.balance_scope == BalanceScope::global_batch && micro_batch.training) {
    use_global_fractions(tape, routing);
  }
  if (!tape.recomputing()) {
    stats_.add(routing);
    stats_.last_auxiliary_loss =
        config_.balance_coefficient * routing.balance() + config_.z_coefficient * routing.z;
  }
  return routing;
}

// f_e of the whole batch (arXiv 2501.11873): counts are summed over the ranks and over the micro-batches so
// far. A recomputed forward must meet the fractions of its first run, and adds nothing.
void Router::use_global_fractions(Tape& tape, const ops::Routing& routing) {
  const auto experts = static_cast<size_t>(routing.experts);
  if (!tape.recomputing()) {
    if (step_ != tape.micro_batch().step) step_counts_.assign(experts, 0.0);
    step_ = tape.micro_batch().step;
    auto* counts = tape.save_array<double>(routing.experts);
    for (size_t e = 0; e < experts; ++e)
      counts[e] = routing.fraction[e] * static_cast<double>(routing.tokens);
    data_parallel_
        .all_reduce(Tensor(counts, DType::f64, {routing.experts}), ReduceOp::sum, ReduceOrder::any,
                    tape.stream())
        .wait();
    for (size_t e = 0; e < experts; ++e) step_counts_[e] += counts[e];
  }
  const double total = std::accumulate(step_counts_.begin(), step_counts_.end(), 0.0);
  for (size_t e = 0; e < experts; ++e) routing.fraction[e] = step_counts_[e] / std::max(total, 1.0);
}

}  // namespace ziggurat::moe
