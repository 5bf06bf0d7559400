#include <ziggurat/moe/experts.h>
#include <ziggurat/ops/alike_ranks.h>
#include <ziggurat/ops/multiply.h>
#include <ziggurat/ops/swiglu.h>

namespace ziggurat::moe {

namespace {

ops::Activation activation_of(nn::MlpKind kind) {
  switch (kind) {
    case nn::MlpKind::gelu_tanh:
      return ops::Activation::gelu_tanh;
    case nn::MlpKind::gelu_erf:
      return ops::Activation::gelu_erf;
    case nn::MlpKind::swiglu:
    case nn::MlpKind::swiglu_linear:
      return ops::Activation::none;
  }
  return ops::Activation::none;
}

}  // namespace

Experts::Experts(nn::ParamStore& store, const std::string& name, const MoeShape& shape, int ep_rank,
                 bool identical)
    : kind_(shape.expert.kind), tensor_(shape.expert.tensor) {
  const int64_t held = shape.experts / shape.expert_parallel;
  const nn::MlpShape& mlp = shape.expert;
  const int64_t parts = nn::parts_of(tensor_), place = nn::part_of(tensor_);
  // `cut`: the dim that ranks share; 0: the first of them has it all.
  const auto add = [&](const char* part, Shape global, int cut, nn::Init init, bool matrix) {
    nn::ParamSpec spec{.name = name + part,
                       .global_shape = global,
                       .init = init,
                       .matrix = matrix,
                       .decay = matrix,
                       .row_begin = ep_rank * held,
                       .row_end = (ep_rank + 1) * held,
                       .expert_parallel = shape.expert_parallel,
                       .identical_rows = identical};
    const Box mine = rows_of(global, spec.row_begin, spec.row_end);
    if (parts > 1) {
      spec.room = cut == 0 ? mine.numel() : 0;
      spec.cut = {cut > 0      ? nn::share_of(mine, cut, place, parts)
                  : place == 0 ? mine
                               : rows_of(global, spec.row_begin, spec.row_begin)};
    }
    spec.product = matrix;
    return &store.add(std::move(spec));
  };
  const int64_t E = shape.experts, C = mlp.width, F = mlp.hidden;
  const nn::Init inner = nn::Init::normal(mlp.init_std), output = nn::Init::normal(mlp.output_init_std);
  if (nn::is_gated(kind_)) {
    gate_weight_ = add(".gate.weight", {E, F, C}, 1, inner, true);
    if (mlp.bias) gate_bias_ = add(".gate.bias", {E, F}, 1, nn::Init::zeros(), false);
  }
  if (kind_ == nn::MlpKind::swiglu_linear) {
    value_weight_ = add(".value.weight", {E, F, C}, 1, inner, true);
    if (mlp.bias) value_bias_ = add(".value.bias", {E, F}, 1, nn::Init::zeros(), false);
  }
  up_weight_ = add(".up.weight", {E, F, C}, 1, inner, true);
  if (mlp.bias) up_bias_ = add(".up.bias", {E, F}, 1, nn::Init::zeros(), false);
  const bool alike = tensor_.tokens_alike;  // outputs are cut, no sums
  down_weight_ = add(".down.weight", {E, C, F}, alike ? 1 : 2, output, true);
  if (!mlp.bias) return;
  const Param* const bias = add(".down.bias", {E, C}, alike ? 1 : 0, nn::Init::zeros(), false);
  if (alike || place == 0) down_bias_ = bias;
}

Var Experts::operator()(Tape& tape, Var x, const Tensor& offsets) const {
  Var inner = ops::grouped_linear(tape, x, offsets, *up_weight_, up_bias_, activation_of(kind_));
  if (value_weight_ != nullptr) {
    inner = ops::multiply(tape, ops::grouped_linear(tape, x, offsets, *value_weight_, value_bias_), inner);
  }
  if (gate_weight_ != nullptr) {
    inner = ops::swiglu(tape, ops::grouped_linear(tape, x, offsets, *gate_weight_, gate_bias_), inner);
  }
  const auto whole = [&](Var part) {
    return tensor_.tokens_alike ? ops::gather_columns(tape, part, *tensor_.group) : part;
  };
  return whole(ops::grouped_linear(tape, whole(inner), offsets, *down_weight_, down_bias_));
}

}  // namespace ziggurat::moe
