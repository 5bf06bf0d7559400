#include <cmath>

#include <ziggurat/moe/router.h>
#include <ziggurat/ops/router_logits.h>
#include <ziggurat/ops/shard_rows.h>

namespace ziggurat::moe {

Router::Router(nn::ParamStore& store, const std::string& name, const MoeConfig& config, int64_t hidden,
               int64_t experts, int64_t layer, Communicator& data_parallel, Communicator& tensor_parallel)
    : config_(config),
      layer_(layer),
      data_parallel_(data_parallel),
      tensor_parallel_(tensor_parallel),
      stats_(store, layer, experts) {
  check(config.top_k <= experts, ErrorKind::config, "{}: moe.top_k is {}, but the layer has {} experts", name,
        config.top_k, experts);
  if (store.options().reproducible == Reproducible::strict) check_strict(config);
  const double half_width = 1.0 / std::sqrt(static_cast<double>(hidden));  // as torch.nn.Linear in DeepSpeed
  weight_ = &store.add({.name = name + ".weight",
                        .global_shape = {experts, hidden},
                        .init = config.router_init_std > 0 ? nn::Init::normal(config.router_init_std)
                                                           : nn::Init::uniform(half_width),
                        .matrix = false,
                        .small_product = true});
  if (config.balance_bias) {
    bias_ = &store.add({.name = name + ".balance_bias",
                        .global_shape = {experts},
                        .init = nn::Init::zeros(),
                        .matrix = false,
                        .decay = false});
    loads_ = &store.add_state(DType::f64, {experts});
  }
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
  args.score = config_.score;
  args.weight_scale = config_.weight_scale;
  args.expert_groups = config_.expert_groups, args.chosen_groups = config_.chosen_groups;
  args.group_tokens = config_.group_tokens;
  if (bias_ != nullptr) args.choice_bias = bias_->value;

  // Few numbers: every rank routes all of the micro-batch's tokens.
  const Var logits =
      ops::gather_rows(tape, ops::router_logits(tape, x, *weight_, nullptr, config_.jitter, layer_),
                       tensor_parallel_, ops::Use::alike);
  const ops::Routing routing = ops::route(tape, logits, args);
  if (assignments_of_step_ != nullptr && micro_batch.training) {
    const bool first = micro_batch.first && !tape.recomputing();
    ops::use_fractions_of_step(tape, routing, data_parallel_, *assignments_of_step_, first);
  }
  if (observer_) observer_(routing);
  if (!tape.recomputing()) {
    ops::add_statistics(tape, routing, config_.balance_coefficient, config_.z_coefficient,
                        sums != nullptr ? *sums : stats_.sums());
  }
  if (tensor_parallel_.size() == 1) return routing;
  return ops::own_tokens(tape, routing, tensor_parallel_.rank() * x.dim(0), x.dim(0));
}

void Router::balance(Stream& stream) {
  if (bias_ == nullptr || config_.balance_bias_rate == 0) return;
  ops::sum_loads(stats_.sums(), *loads_, data_parallel_, stream);
  ops::move_balance_bias(*loads_, config_.balance_bias_rate, bias_->value, stream);
}

}  // namespace ziggurat::moe
