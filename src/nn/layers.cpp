#include <algorithm>
#include <cmath>

#include <ziggurat/nn/layers.h>
#include <ziggurat/ops/alike_ranks.h>
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

Var of_all_tokens(Tape& tape, Var x, const TensorParallel& tensor) {
  if (tensor.group == nullptr || tensor.tokens_alike) return x;
  return ops::gather_rows(tape, x, *tensor.group, ops::Use::apart);
}

const Param& add_norm_weight(ParamStore& store, const std::string& name, int64_t width,
                             std::vector<Box> cut = {}) {
  return store.add({.name = name + ".weight",
                    .global_shape = {width},
                    .init = Init::ones(),
                    .matrix = false,
                    .decay = false,
                    .cut = std::move(cut)});
}
// Rows of a tensor whose leading dim is made of pieces, of which each of `parts` ranks holds an equal share
// in whole units. Of fewer units than ranks each is held by several.
std::vector<Box> cut_pieces(const Shape& shape, const std::vector<int64_t>& pieces, int64_t unit,
                            int64_t part, int64_t parts) {
  std::vector<Box> boxes;
  int64_t row = 0;
  for (const int64_t piece : pieces) {
    const int64_t units = piece / unit, holders = std::max<int64_t>(1, parts / units);
    check(
        units * holders % parts == 0, ErrorKind::config,
        "tensor parallelism: {} rows of a weight {}, which stay together by {}, cannot be cut into {} equal "
        "parts",
        piece, shape, unit, parts);
    const int64_t share = units * holders / parts * unit, begin = row + part / holders * share;
    boxes.push_back(rows_of(shape, begin, begin + share));
    row += piece;
  }
  return boxes;
}

}  // namespace

Linear::Linear(ParamStore& store, const std::string& name, int64_t in, int64_t out, bool bias,
               Init weight_init, const LinearPart& part) {
  const int64_t parts = parts_of(part.tensor), place = part_of(part.tensor);
  const Cut cut = parts > 1 ? part.cut : Cut::none;
  const bool cut_outputs = cut == Cut::out || (cut == Cut::in && part.tensor.tokens_alike);
  const std::vector<int64_t> pieces = part.pieces.empty() ? std::vector{out} : part.pieces;
  ParamSpec weight{.name = name + ".weight", .global_shape = {out, in}, .init = weight_init};
  if (cut_outputs) {
    weight.cut = cut_pieces(weight.global_shape, pieces, part.unit, place, parts);
  } else if (cut == Cut::in) {
    weight.cut = cut_columns(weight.global_shape, place, parts);
  }
  weight.product = true;
  weight_ = &store.add(std::move(weight));
  if (cut == Cut::in) joins_ = part.tensor;
  if (!bias) return;
  ParamSpec offsets{
      .name = name + ".bias", .global_shape = {out}, .init = Init::zeros(), .matrix = false, .decay = false};
  if (cut_outputs) offsets.cut = cut_pieces(offsets.global_shape, pieces, part.unit, place, parts);
  bias_ = &store.add(std::move(offsets));
}

Var Linear::operator()(Tape& tape, Var x, Activation activation) const {
  if (joins_.group == nullptr) return ops::linear(tape, x, *weight_, bias_, activation);
  if (joins_.tokens_alike) {
    const Var all = ops::gather_columns(tape, x, *joins_.group);
    return ops::gather_columns(tape, ops::linear(tape, all, *weight_, bias_, activation), *joins_.group);
  }
  const Var y = ops::sum_rows(tape, ops::linear(tape, x, *weight_, nullptr), *joins_.group);
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
  x = of_all_tokens(tape, x, tensor_);
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
           {s.tensor,
            Cut::out,
            {s.heads * s.head_dim, s.kv_heads * s.head_dim, s.kv_heads * s.head_dim},
            s.head_dim}),
      out_(store, name + ".out", s.heads * s.head_dim, s.width, s.bias, Init::normal(s.output_init_std),
           {s.tensor, Cut::in}) {
  if (s.qk_norm == QkNorm::none) return;
  const auto weight = [&](const char* of, int64_t heads) -> const Param& {
    if (s.qk_norm == QkNorm::head) return add_norm_weight(store, name + of, s.head_dim);
    const Shape width{heads * s.head_dim};
    if (parts_of(s.tensor) == 1) return add_norm_weight(store, name + of, width[0]);
    return add_norm_weight(store, name + of, width[0],
                           cut_pieces(width, {width[0]}, s.head_dim, part_of(s.tensor), parts_of(s.tensor)));
  };
  q_norm_ = &weight(".q_norm", s.heads);
  k_norm_ = &weight(".k_norm", s.kv_heads);
}

Var Attention::project(Tape& tape, Var x, const ops::AttentionShape& heads) const {
  const Var qkv = qkv_(tape, x);
  if (shape_.qk_norm == QkNorm::none) return qkv;
  return ops::qk_norm(tape, qkv, {heads, shape_.qk_norm == QkNorm::head}, *q_norm_, *k_norm_, shape_.norm_eps,
                      shape_.tensor.group);
}

Var Attention::operator()(Tape& tape, Var x, const Sequences& sequences) const {
  const Span span(tape.stream().profile(), "attention");
  x = of_all_tokens(tape, x, shape_.tensor);
  const int64_t own_heads = shape_.own_heads();
  const ops::AttentionShape heads{x.dim(0) / sequences.length, sequences.length, own_heads,
                                  shape_.own_kv_heads(), shape_.head_dim};
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
