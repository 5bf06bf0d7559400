#include <cmath>

#include <ziggurat/nn/layers.h>
#include <ziggurat/ops/choose_rows.h>
#include <ziggurat/ops/layer_norm.h>
#include <ziggurat/ops/multiply.h>
#include <ziggurat/ops/qk_norm.h>
#include <ziggurat/ops/rms_norm.h>
#include <ziggurat/ops/rope.h>
#include <ziggurat/ops/shard_rows.h>
#include <ziggurat/ops/swiglu.h>

namespace ziggurat::nn {

namespace {
Activation gelu_of(MlpKind kind) {
  return kind == MlpKind::gelu_erf ? Activation::gelu_erf : Activation::gelu_tanh;
}

Var of_all_ranks(Tape& tape, Var x, TensorParallel group) {
  return group == nullptr ? x : ops::gather_rows(tape, x, *group, ops::Use::apart);
}

const Param& add_norm_weight(ParamStore& store, const std::string& name, int64_t width) {
  return store.add({.name = name + ".weight",
                    .global_shape = {width},
                    .init = Init::ones(),
                    .matrix = false,
                    .decay = false});
}
}  // namespace

Linear::Linear(ParamStore& store, const std::string& name, int64_t in, int64_t out, bool bias,
               Init weight_init, const LinearPart& part) {
  const int64_t parts = parts_of(part.group), place = part_of(part.group);
  const Cut cut = parts > 1 ? part.cut : Cut::none;
  const std::vector<int64_t> pieces = part.pieces.empty() ? std::vector{out} : part.pieces;
  ParamSpec weight{.name = name + ".weight", .global_shape = {out, in}, .init = weight_init};
  if (cut == Cut::out) weight.cut = cut_rows(weight.global_shape, pieces, place, parts);
  if (cut == Cut::in) weight.cut = cut_columns(weight.global_shape, place, parts);
  weight.product = true;
  weight_ = &store.add(std::move(weight));
  if (cut == Cut::in) sums_over_ = part.group;
  if (!bias) return;
  ParamSpec offsets{
      .name = name + ".bias", .global_shape = {out}, .init = Init::zeros(), .matrix = false, .decay = false};
  if (cut == Cut::out) offsets.cut = cut_rows(offsets.global_shape, pieces, place, parts);
  bias_ = &store.add(std::move(offsets));
}

Var Linear::operator()(Tape& tape, Var x, Activation activation) const {
  if (sums_over_ == nullptr) return ops::linear(tape, x, *weight_, bias_, activation);
  const Var y = ops::sum_rows(tape, ops::linear(tape, x, *weight_, nullptr), *sums_over_);
  return bias_ == nullptr ? y : ops::add_bias(tape, y, *bias_);
}

Norm::Norm(ParamStore& store, const std::string& name, NormKind kind, int64_t width, double eps)
    : weight_(&add_norm_weight(store, name, width)), eps_(eps) {
  if (kind == NormKind::layer_norm) {
    bias_ = &store.add({.name = name + ".bias",
                        .global_shape = {width},
                        .init = Init::zeros(),
                        .matrix = false,
                        .decay = false});
  }
}

Var Norm::operator()(Tape& tape, Var x) const {
  return bias_ != nullptr ? ops::layer_norm(tape, x, *weight_, *bias_, eps_)
                          : ops::rms_norm(tape, x, *weight_, eps_);
}

namespace {

Init drawn(const MlpShape& s, double std) {
  return s.truncated_init ? Init::truncated_normal(std) : Init::normal(std);
}

std::unique_ptr<Linear> inner_linear(ParamStore& store, const std::string& name, const MlpShape& s) {
  return std::make_unique<Linear>(store, name, s.width, s.hidden, s.bias, drawn(s, s.init_std),
                                  LinearPart{s.tensor, Cut::out});
}

}  // namespace

Mlp::Mlp(ParamStore& store, const std::string& name, const MlpShape& s)
    : kind_(s.kind),
      tensor_(s.tensor),
      gate_(is_gated(s.kind) ? inner_linear(store, name + ".gate", s) : nullptr),
      value_(s.kind == MlpKind::swiglu_linear ? inner_linear(store, name + ".value", s) : nullptr),
      up_(store, name + ".up", s.width, s.hidden, s.bias, drawn(s, s.init_std), {s.tensor, Cut::out}),
      down_(store, name + ".down", s.hidden, s.width, s.bias, drawn(s, s.output_init_std),
            {s.tensor, Cut::in}) {}

Var Mlp::operator()(Tape& tape, Var x) const {
  x = of_all_ranks(tape, x, tensor_);
  if (gate_ == nullptr) return down_(tape, up_(tape, x, gelu_of(kind_)));
  const Var gate = (*gate_)(tape, x);
  Var linear = up_(tape, x);
  if (value_ != nullptr) linear = ops::multiply(tape, (*value_)(tape, x), linear);
  return down_(tape, ops::swiglu(tape, gate, linear));
}

Attention::Attention(ParamStore& store, const std::string& name, const AttentionLayerShape& s)
    : shape_(s),
      qkv_(store, name + ".qkv", s.width, (s.heads + 2 * s.kv_heads) * s.head_dim, s.bias,
           {Init::Kind::normal, s.init_std, s.heads * s.head_dim * s.width, s.query_init_factor},
           {s.tensor, Cut::out, {s.heads * s.head_dim, s.kv_heads * s.head_dim, s.kv_heads * s.head_dim}}),
      out_(store, name + ".out", s.heads * s.head_dim, s.width, s.bias, Init::normal(s.output_init_std),
           {s.tensor, Cut::in}) {
  if (s.qk_norm == QkNorm::none) return;
  const auto width = [&](int64_t heads) {
    return s.qk_norm == QkNorm::head ? s.head_dim : heads * s.head_dim;
  };
  q_norm_ = &add_norm_weight(store, name + ".q_norm", width(s.heads));
  k_norm_ = &add_norm_weight(store, name + ".k_norm", width(s.kv_heads));
}

Var Attention::project(Tape& tape, Var x, const ops::AttentionShape& heads) const {
  const Var qkv = qkv_(tape, x);
  if (shape_.qk_norm == QkNorm::none) return qkv;
  return ops::qk_norm(tape, qkv, {heads, shape_.qk_norm == QkNorm::head}, *q_norm_, *k_norm_,
                      shape_.norm_eps);
}

Var Attention::operator()(Tape& tape, Var x, const Sequences& sequences) const {
  const Span span(tape.stream().profile(), "attention");
  x = of_all_ranks(tape, x, shape_.tensor);
  const int64_t parts = parts_of(shape_.tensor), own_heads = shape_.heads / parts;
  const ops::AttentionShape heads{x.dim(0) / sequences.length, sequences.length, own_heads,
                                  shape_.kv_heads / parts, shape_.head_dim};
  const double scale =
      shape_.scale > 0 ? shape_.scale : 1.0 / std::sqrt(static_cast<double>(shape_.head_dim));
  const auto out = [&](Var y) {
    return out_(tape, sequences.wanted ? ops::choose_rows(tape, y, *sequences.wanted) : y);
  };
  Var qkv = project(tape, x, heads);
  if (const CachedRows& cached = sequences.cached; cached.cache != nullptr) {
    ops::CacheRows rows = cached.rows;
    if (shape_.window > 0)
      rows.window = rows.window > 0 ? std::min(rows.window, shape_.window) : shape_.window;
    return out(ops::cached_attention(tape, qkv, heads, scale, cached.cache->layer(shape_.layer), rows));
  }
  if (shape_.rope_theta > 0) qkv = ops::rope(tape, qkv, heads, shape_.rope_theta, sequences.positions);
  return out(ops::attention(tape, qkv, heads, scale, shape_.dropout, shape_.layer,
                            {sequences.first_key, sequences.last_key, shape_.window},
                            {shape_.heads, part_of(shape_.tensor) * own_heads}));
}

}  // namespace ziggurat::nn
