// The layers that every block is made of. A layer registers its parameters in the constructor and is a
// function of (tape, input) afterwards.
#pragma once

#include <optional>
#include <span>
#include <string>

#include <ziggurat/nn/kv_cache.h>
#include <ziggurat/nn/param_store.h>
#include <ziggurat/ops/attention.h>
#include <ziggurat/ops/linear.h>

namespace ziggurat::nn {

using ops::Activation;

// y [N, out] = activation(x [N, in] W^T + b)
class Linear {
 public:
  Linear(ParamStore& store, const std::string& name, int64_t in, int64_t out, bool bias, Init weight_init);
  Var operator()(Tape& tape, Var x, Activation activation = Activation::none) const;

 private:
  const Param* weight_;
  const Param* bias_ = nullptr;
};

enum class NormKind { layer_norm, rms_norm };

class Norm {
 public:
  Norm(ParamStore& store, const std::string& name, NormKind kind, int64_t width, double eps);
  Var operator()(Tape& tape, Var x) const;

 private:
  const Param* weight_;
  const Param* bias_ = nullptr;  // layer_norm only
  double eps_;
};

enum class MlpKind { gelu_tanh, gelu_erf, swiglu };

struct MlpShape {
  MlpKind kind = MlpKind::gelu_tanh;
  int64_t width = 0, hidden = 0;
  bool bias = true;
  double init_std = 0.02, output_init_std = 0.02;
};

// down(gelu(up(x))), or down(silu(gate(x)) * up(x)) for swiglu.
class Mlp {
 public:
  Mlp(ParamStore& store, const std::string& name, const MlpShape& shape);
  Var operator()(Tape& tape, Var x) const;

 private:
  MlpKind kind_;
  std::unique_ptr<Linear> gate_;  // swiglu only
  Linear up_, down_;
};

enum class QkNorm {
  none,
  head,   // over each head (Qwen3)
  width,  // over the whole width of all heads (OLMoE)
};

struct AttentionLayerShape {
  int64_t width = 0, heads = 0, kv_heads = 0, head_dim = 0;
  bool bias = true;
  double rope_theta = 0.0;        // 0: no rotary positions
  QkNorm qk_norm = QkNorm::none;  // RMS normalisation of queries and keys, before they are rotated
  double norm_eps = 1e-5;
  double dropout = 0.0;  // of the attention probabilities
  double init_std = 0.02, output_init_std = 0.02;
  int64_t layer = 0;  // names the random numbers
};

// How rows [sequences * length] make up sequences of `length` tokens. The arrays are [rows], or null; they
// must stay as they are until backward has run.
struct Sequences {
  int64_t length = 0;
  const int32_t* positions = nullptr;  // of each row; null: its place in its sequence
  const int32_t* first_key = nullptr;  // the first place in its sequence that a row may attend to; null: 0
  // With a cache, the rows extend sequences that it holds: `cached.rows` says which, and where.
  CachedRows cached = {};
  // In inference, the rows whose results anybody wants, ascending; nothing: all. The others are attended to,
  // and that is all that is computed of them.
  std::optional<std::span<const int32_t>> wanted = {};
};

// Causal self-attention of x [sequences * length, width]. The result has the wanted rows only.
class Attention {
 public:
  Attention(ParamStore& store, const std::string& name, const AttentionLayerShape& shape);
  Var operator()(Tape& tape, Var x, const Sequences& sequences) const;

 private:
  Var project(Tape& tape, Var x, const ops::AttentionShape& heads) const;

  AttentionLayerShape shape_;
  Linear qkv_, out_;
  const Param *q_norm_ = nullptr, *k_norm_ = nullptr;  // unless QkNorm::none
};

}  // namespace ziggurat::nn
