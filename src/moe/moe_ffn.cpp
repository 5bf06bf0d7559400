#include <cmath>

#include <ziggurat/core/span.h>
#include <ziggurat/moe/alike_dispatcher.h>
#include <ziggurat/moe/moe_ffn.h>
#include <ziggurat/ops/add.h>
#include <ziggurat/ops/gated_add.h>
#include <ziggurat/ops/mix.h>
#include <ziggurat/ops/router_logits.h>

namespace ziggurat::moe {

MoeFfn::MoeFfn(nn::ParamStore& store, const std::string& name, const MoeConfig& config, const MoeShape& shape,
               const ProcessGroups& groups)
    : router_(store, name + ".router", config, shape.expert.width, shape.experts, shape.layer, groups.dp(),
              groups.token_parts()),
      dispatcher_(
          groups.plan().tokens_alike()
              ? make_alike_dispatcher(groups, shape.experts, shape.expert_parallel)
              : make_token_dispatcher(groups.ep(shape.expert_parallel), groups.expert_tp(), shape.experts)),
      experts_(store, name + ".experts", shape, groups.ep(shape.expert_parallel).rank(),
               config.identical_experts) {}

Var MoeFfn::operator()(Tape& tape, Var x, int64_t sequence_length, const Tensor* sums) {
  return end(tape, begin(tape, x, sequence_length, sums));
}

// Spans are of the phases of arXiv 2201.05596, section 5.
MoeFfn::Begun MoeFfn::begin(Tape& tape, Var x, int64_t sequence_length, const Tensor* sums) {
  Profile* const profile = tape.stream().profile();
  const ops::Routing routing = [&] {
    const Span span(profile, "gate");
    return router_(tape, x, sequence_length, sums);
  }();
  const Span span(profile, "all_to_all_1");
  return {routing, dispatcher_->begin_dispatch(tape, x, routing)};
}

Var MoeFfn::end(Tape& tape, Begun begun) {
  Profile* const profile = tape.stream().profile();
  {
    const Span span(profile, "all_to_all_1");
    dispatcher_->end_dispatch(tape, begun.rows);
  }
  const Var outputs = [&] {
    const Span span(profile, "experts");
    return experts_(tape, begun.rows.rows, begun.rows.offsets);
  }();
  const Span span(profile, "all_to_all_2");
  return dispatcher_->combine(tape, outputs, begun.rows, begun.routing);
}

ResidualMoeFfn::ResidualMoeFfn(nn::ParamStore& store, const std::string& name, const MoeConfig& config,
                               const MoeShape& shape, const ProcessGroups& groups)
    : moe_(store, name + ".moe", config, shape, groups),
      mlp_(store, name + ".mlp", shape.residual),
      mix_(config.residual_mix),
      layer_(shape.layer) {
  check(mix_ != ResidualMix::sequential, ErrorKind::internal,
        "{}: experts and MLP of a sequential layer are no one sub-layer; see model::Block", name);
  if (mix_ == ResidualMix::sum) return;
  const int64_t hidden = shape.expert.width, coefficients = mix_ == ResidualMix::softmax ? 2 : 1;
  const nn::Init init =
      nn::Init::uniform(1.0 / std::sqrt(static_cast<double>(hidden)));  // as torch.nn.Linear
  coefficient_weight_ = &store.add({.name = name + ".moe.coefficient.weight",
                                    .global_shape = {coefficients, hidden},
                                    .init = init,
                                    .matrix = false,
                                    .small_product = true});
  if (!config.coefficient_bias) return;
  coefficient_bias_ = &store.add({.name = name + ".moe.coefficient.bias",
                                  .global_shape = {coefficients},
                                  .init = init,
                                  .matrix = false,
                                  .decay = false});
}

Var ResidualMoeFfn::operator()(Tape& tape, Var x, int64_t sequence_length, const Tensor* sums) {
  const MoeFfn::Begun begun = moe_.begin(tape, x, sequence_length, sums);
  const Var fixed = mlp_(tape, x);  // while tokens are on their way
  const Var routed = moe_.end(tape, begun);
  if (mix_ == ResidualMix::sum) return ops::add(tape, routed, fixed);
  const Var coefficients = ops::router_logits(tape, x, *coefficient_weight_, coefficient_bias_, 0.0, layer_);
  if (mix_ == ResidualMix::sigmoid) return ops::gated_add(tape, routed, fixed, coefficients);
  return ops::mix(tape, routed, fixed, coefficients);
}

}  // namespace ziggurat::moe
