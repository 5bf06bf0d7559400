#include <cmath>

#include <ziggurat/moe/router.h>
#include <ziggurat/ops/router_logits.h>

namespace ziggurat::moe {

Router::Router(nn::ParamStore& store, const std::string& name, const MoeConfig& config, int64_t hidden,
               int64_t experts, int64_t layer, Communicator& data_parallel)
    : config_(config), layer_(layer), data_parallel_(data_parallel), stats_(store, layer, experts) {
  check(config.top_k <= experts, ErrorKind::config, "{}: moe.top_k is {}, but the layer has {} experts", name,
        config.top_k, experts);
  if (store.options().reproducible == Reproducible::strict) check_strict(config);
  const double half_width = 1.0 / std::sqrt(static_cast<double>(hidden));  // as torch.nn.Linear in DeepSpeed
  weight_ = &store.add({.name = name + ".weight",
                        .global_shape = {experts, hidden},
                        .init = nn::Init::uniform(half_width),
                        .matrix = false,
                        .small_product = true});
  if (config.balance_scope == BalanceScope::global_batch) {
    assignments_of_step_ = &store.add_state(DType::f64, {experts});
  }
}

ops::Routing Router::operator()(Tape& tape, Var x, int64_t sequence_length, const Tensor* sums) {
  const MicroBatch& micro_batch = tape.micro_batch();
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
  args.balance_coefficient = config_.balance_coefficient;
  args.z_coefficient = config_.z_coefficient;
  args.layer = static_cast<uint64_t>(layer_);

  const Var logits = ops::router_logits(tape, x, *weight_, nullptr, config_.jitter, layer_);
  const ops::Routing routing = ops::route(tape, logits, args);
  if (assignments_of_step_ != nullptr && micro_batch.training) {
    const bool first = micro_batch.first && !tape.recomputing();
    ops::use_fractions_of_step(tape, routing, data_parallel_, *assignments_of_step_, first);
  }
  if (!tape.recomputing()) {
    ops::add_statistics(tape, routing, config_.balance_coefficient, config_.z_coefficient,
                        sums != nullptr ? *sums : stats_.sums());
  }
  return routing;
}

}  // namespace ziggurat::moe
