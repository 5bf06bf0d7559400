#include <cmath>

#include <ziggurat/nn/layers.h>
#include <ziggurat/ops/choose_rows.h>
#include <ziggurat/ops/layer_norm.h>
#include <ziggurat/ops/qk_norm.h>
#include <ziggurat/ops/rms_norm.h>
#include <ziggurat/ops/rope.h>
#include <ziggurat/ops/swiglu.h>

namespace ziggurat::nn {

namespace {
Activation gelu_of(MlpKind kind) {
  return kind == MlpKind::gelu_erf ? Activation::gelu_erf : Activation::gelu_tanh;
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
               Init weight_init)
    : weight_(&store.add(
          {.name = name + ".weight", .global_shape = {out, in}, .init = weight_init, .product_rows = out})) {
  if (bias) {
    bias_ = &store.add({.name = name + ".bias",
                        .global_shape = {out},
                        .init = Init::zeros(),
                        .matrix = false,
                        .decay = false});
  }
}

Var Linear::operator()(Tape& tape, Var x, Activation activation) const {
  return ops::linear(tape, x, *weight_, bias_, activation);
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

Mlp::Mlp(ParamStore& store, const std::string& name, const MlpShape& s)
    : kind_(s.kind),
      gate_(s.kind == MlpKind::swiglu ? std::make_unique<Linear>(store, name + ".gate", s.width, s.hidden,
                                                                 s.bias, Init::normal(s.init_std))
                                      : nullptr),
      up_(store, name + ".up", s.width, s.hidden, s.bias, Init::normal(s.init_std)),
      down_(store, name + ".down", s.hidden, s.width, s.bias, Init::normal(s.output_init_std)) {}

Var Mlp::operator()(Tape& tape, Var x) const {
  if (gate_ == nullptr) return down_(tape, up_(tape, x, gelu_of(kind_)));
  return down_(tape, ops::swiglu(tape, (*gate_)(tape, x), up_(tape, x)));
}

Attention::Attention(ParamStore& store, const std::string& name, const AttentionLayerShape& s)
    : shape_(s),
      qkv_(store, name + ".qkv", s.width, (s.heads + 2 * s.kv_heads) * s.head_dim, s.bias,
           Init::normal(s.init_std)),
      out_(store, name + ".out", s.heads * s.head_dim, s.width, s.bias, Init::normal(s.output_init_std)) {
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
  const ops::AttentionShape heads{x.dim(0) / sequences.length, sequences.length, shape_.heads,
                                  shape_.kv_heads, shape_.head_dim};
  const double scale = 1.0 / std::sqrt(static_cast<double>(shape_.head_dim));
  const auto out = [&](Var y) {
    return out_(tape, sequences.wanted ? ops::choose_rows(tape, y, *sequences.wanted) : y);
  };
  Var qkv = project(tape, x, heads);
  if (const CachedRows& cached = sequences.cached; cached.cache != nullptr) {
    return out(
        ops::cached_attention(tape, qkv, heads, scale, cached.cache->layer(shape_.layer), cached.rows));
  }
  if (shape_.rope_theta > 0) qkv = ops::rope(tape, qkv, heads, shape_.rope_theta, sequences.positions);
  return out(ops::attention(tape, qkv, heads, scale, shape_.dropout, shape_.layer, sequences.first_key));
}

}  // namespace ziggurat::nn
