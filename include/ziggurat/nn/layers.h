// The layers that every block is made of. A layer registers its parameters in the constructor and is a
// function of (tape, input) afterwards.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include <ziggurat/nn/kv_cache.h>
#include <ziggurat/nn/param_store.h>
#include <ziggurat/ops/attention.h>
#include <ziggurat/ops/linear.h>

namespace ziggurat::nn {

using ops::Activation;

// How a layer's matrices are cut over the ranks of `group`. Null, or a group of one: they are not.
//   in training   the ranks share the tokens between them (Megatron's tensor and sequence parallelism, arXiv
//                 2205.05198): x and y are this rank's rows of the micro-batch
//   tokens_alike  in inference: each rank has all of x and all of y. No sum is cut, so that results have the
//                 bits of one rank: where training cuts the inputs of a matrix, and sums over ranks, here its
//                 outputs are cut too, and ranks gather what comes in and what goes out. These are as many
//                 messages, and bytes, as Megatron's sum, but for MLPs, whose inner values are wider.
struct TensorParallel {
  TensorParallel(Communicator* ranks = nullptr, bool alike = false) : group(ranks), tokens_alike(alike) {}
  Communicator* group;
  bool tokens_alike;
};
inline int64_t parts_of(const TensorParallel& t) { return t.group == nullptr ? 1 : t.group->size(); }
inline int64_t part_of(const TensorParallel& t) { return t.group == nullptr ? 0 : t.group->rank(); }

enum class Cut {
  none,
  out,  // rows of W, and with them columns of y, of all tokens' x
  in,   // x comes in such columns. Columns of W, and y are this rank's rows, summed over ranks; or (tokens
        // alike) rows of W, and y is whole
};
struct LinearPart {
  TensorParallel tensor = {};
  Cut cut = Cut::none;
  std::vector<int64_t> pieces = {};  // of `out`, each of which is cut; none: it is one
  int64_t unit = 1;                  // rows of a piece that stay together (a head's)
};

// y [N, out] = activation(x [N, in] W^T + b)
class Linear {
 public:
  Linear(ParamStore& store, const std::string& name, int64_t in, int64_t out, bool bias, Init weight_init,
         const LinearPart& part = {});
  Var operator()(Tape& tape, Var x, Activation activation = Activation::none) const;

 private:
  TensorParallel joins_ = {};  // Cut::in
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

enum class MlpKind {
  gelu_tanh,
  gelu_erf,
  swiglu,         // three matrices
  swiglu_linear,  // four
};
inline bool is_gated(MlpKind kind) { return kind == MlpKind::swiglu || kind == MlpKind::swiglu_linear; }

struct MlpShape {
  MlpKind kind = MlpKind::gelu_tanh;
  int64_t width = 0, hidden = 0;
  bool bias = true;
  double init_std = 0.02, output_init_std = 0.02;
  bool truncated_init = false;  // of the MLP's matrices, not of experts'
  TensorParallel tensor = {};

  int64_t matrices() const { return kind == MlpKind::swiglu_linear ? 4 : kind == MlpKind::swiglu ? 3 : 2; }
};

// down(gelu(up(x))), down(silu(gate(x)) * up(x)) for swiglu, or down(silu(gate(x)) * value(x) * up(x)) for
// swiglu_linear (t5x's activations ('swiglu', 'linear'), of which OpenMoE's released weights are).
class Mlp {
 public:
  Mlp(ParamStore& store, const std::string& name, const MlpShape& shape);
  Var operator()(Tape& tape, Var x) const;

 private:
  MlpKind kind_;
  TensorParallel tensor_;
  std::unique_ptr<Linear> gate_, value_;  // where there are
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
  int64_t layer = 0;             // names the random numbers
  double scale = 0.0;            // of scores; 0: 1 / sqrt(head_dim)
  double query_init_factor = 1;  // of the queries' initial values
  int64_t window = 0;            // a row sees so many keys at most, the last its own; 0: all
  TensorParallel tensor = {};    // cuts the heads

  // This rank's. In inference more ranks than key and value heads are multiples of them, which several hold.
  int64_t own_heads() const { return heads / parts_of(tensor); }
  int64_t own_kv_heads() const { return kv_heads < parts_of(tensor) ? 1 : kv_heads / parts_of(tensor); }
};

// How rows [sequences * length] make up sequences of `length` tokens. The arrays are [rows], or null; they
// must stay as they are until backward has run.
struct Sequences {
  int64_t length = 0;
  const int32_t* positions = nullptr;  // of each row; null: its place in its sequence
  const int32_t* first_key = nullptr;  // the first place in its sequence that a row may attend to; null: 0
  const int32_t* last_key = nullptr;   // the last one; null: its own. Of sequences that are not cached
  // With a cache, the rows extend sequences that it holds: `cached.rows` says which, and where.
  CachedRows cached = {};
  // In inference, the rows whose results anybody wants, ascending; nothing: all. The others are attended to,
  // and that is all that is computed of them.
  std::optional<std::span<const int32_t>> wanted = {};
};

// Self-attention of x [sequences * length, width]. The result has the wanted rows only.
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
