// A model as data: sizes, and for each layer which feed-forward it has. Dense, standard-MoE and PR-MoE models
// differ only in these values.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <ziggurat/config/fields.h>
#include <ziggurat/moe/moe_config.h>
#include <ziggurat/nn/layers.h>

namespace ziggurat::model {

enum class FfnKind {
  dense,         // the MLP
  moe,           // experts instead of the MLP (standard MoE)
  residual_moe,  // the MLP and experts, mixed (residual MoE; with growing expert counts: PR-MoE)
};
inline std::vector<EnumName> enum_names(FfnKind) {
  return {{FfnKind::dense, "dense"}, {FfnKind::moe, "moe"}, {FfnKind::residual_moe, "residual_moe"}};
}

// How matrices start. OpenMoE (t5x) has variance_scaling with init_scale 0.1, embedding_init_std 1 and
// moe.router_init_std 0.02.
enum class InitRule {
  normal,            // N(0, init_std^2); output layers as GPT-2's, init_std / sqrt(2 layers)
  variance_scaling,  // variance init_scale / inputs; cut at two standard deviations in MLPs and an untied
                     // head
};
inline std::vector<EnumName> enum_names(InitRule) {
  return {{InitRule::normal, "normal"}, {InitRule::variance_scaling, "variance_scaling"}};
}

enum class Positions { learned, rope };
inline std::vector<EnumName> enum_names(Positions) {
  return {{Positions::learned, "learned"}, {Positions::rope, "rope"}};
}

// One layer, as it is built.
struct BlockSpec {
  FfnKind ffn = FfnKind::dense;
  int64_t experts = 0;
  int expert_parallel = 1;  // ranks that share the experts, at most: see fit_to_ranks

  template <class V>
  void visit_fields(V& v) {
    v.field("ffn", ffn, "feed-forward of the layer");
    v.field("experts", experts, "experts of a moe or residual_moe layer", at_least(0), at_most(1 << 20));
    v.field("expert_parallel", expert_parallel, "at most this many ranks share the layer's experts",
            at_least(1), at_most(1 << 20));
  }
  void validate(Problems& problems) const;
};

// A run of layers: `pattern`, `repeat` times.
struct BlockRun {
  int64_t repeat = 1;
  std::vector<BlockSpec> pattern;

  template <class V>
  void visit_fields(V& v) {
    v.field("repeat", repeat, "how often the pattern is repeated", at_least(1), at_most(10000));
    v.field("pattern", pattern, "layers, in order", not_empty);
  }
};

struct DropoutConfig {
  double embedding = 0.0, attention = 0.0, hidden = 0.0;

  template <class V>
  void visit_fields(V& v) {
    v.field("embedding", embedding, "rate after the embeddings", at_least(0.0), below(1.0));
    v.field("attention", attention, "rate of the attention probabilities", at_least(0.0), below(1.0));
    v.field("hidden", hidden, "rate of each sub-layer's output", at_least(0.0), below(1.0));
  }
};

struct ModelConfig {
  std::string name;
  int64_t vocab_size = 50257;
  int64_t vocab_multiple = 128;
  int64_t max_sequence = 2048;
  int64_t hidden = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t ffn_hidden = 0;
  nn::MlpKind activation = nn::MlpKind::gelu_tanh;
  nn::NormKind norm = nn::NormKind::layer_norm;
  double norm_eps = 1e-5;
  Positions positions = Positions::learned;
  double rope_theta = 10000.0;
  double attention_scale = 0.0;
  int64_t window = 0;
  nn::QkNorm qk_norm = nn::QkNorm::none;
  bool bias = true;
  bool tied_embeddings = true;
  InitRule init = InitRule::normal;
  double init_std = 0.02;
  double init_scale = 1.0;
  double embedding_init_std = 0.0;
  int64_t mup_base_hidden = 0, mup_base_head_dim = 0;
  DropoutConfig dropout;
  moe::MoeConfig moe;
  std::vector<BlockRun> blocks;

  template <class V>
  void visit_fields(V& v) {
    v.field("name", name, "shown in logs and written into checkpoints");
    v.field("vocab_size", vocab_size, "tokens of the tokenizer", at_least(1), at_most(100e6));
    v.field("vocab_multiple", vocab_multiple, "the embedding is padded to a multiple of this", at_least(1),
            at_most(1 << 20));
    v.field("max_sequence", max_sequence, "longest sequence (rows of learned positions)", at_least(1),
            at_most(1 << 24));
    v.field("hidden", hidden, "width of the residual stream", at_least(1), at_most(1 << 20));
    v.field("heads", heads, "attention heads", at_least(1), at_most(1 << 16));
    v.field("kv_heads", kv_heads, "key and value heads; 0: as heads", at_least(0), at_most(1 << 16));
    v.field("head_dim", head_dim, "width of a head; 0: hidden / heads", at_least(0), at_most(1 << 16));
    v.field("ffn_hidden", ffn_hidden, "inner width of an MLP; 0: 4 x hidden", at_least(0), at_most(1 << 24));
    v.field(
        "activation", activation,
        "of MLPs and experts; swiglu has three matrices, swiglu_linear four (OpenMoE's released weights)");
    v.field("norm", norm, "normalisation before each sub-layer");
    v.field("norm_eps", norm_eps, "added to the variance, or mean square", above(0.0));
    v.field("positions", positions, "position encoding");
    v.field("rope_theta", rope_theta, "base of the rotary frequencies", above(0.0));
    v.field(
        "attention_scale", attention_scale,
        "attention scores are queries times keys times this; 0: 1 / sqrt(head_dim); 1: unscaled (OpenMoE, "
        "T5)",
        at_least(0.0));
    v.field("window", window,
            "sliding attention window: a token attends to so many tokens at most, itself the last of them; "
            "0: to all",
            unit::tokens, at_least(0), at_most(1 << 24));
    v.field("qk_norm", qk_norm,
            "RMS normalisation of queries and keys, before rotary positions: over each head, or the width of "
            "all heads");
    v.field("bias", bias, "biases in linear layers and experts");
    v.field("tied_embeddings", tied_embeddings, "the vocabulary head shares the token embedding");
    v.field("init", init,
            "initial values of matrices: normal with init_std, or variance_scaling by their inputs (t5x)");
    v.field("init_scale", init_scale, "init variance_scaling: variance times inputs (OpenMoE: 0.1)",
            above(0.0));
    v.field("embedding_init_std", embedding_init_std, "of the token embedding; 0: init_std", at_least(0.0));
    v.field("init_std", init_std, "of matrices; output layers use init_std / sqrt(2 layers)", above(0.0));
    v.field("mup_base_hidden", mup_base_hidden,
            "width transfer (muP, arXiv 2203.03466): initial values, learning rates and the head's factor by "
            "hidden / this, so that what was tuned at this width serves at others; 0: none",
            at_least(0), at_most(1 << 20));
    v.field("mup_base_head_dim", mup_base_head_dim,
            "where heads grow in width too: head_dim at mup_base_hidden, so that attention scores are scaled "
            "by 1 / head_dim (muP) and are the usual ones there; 0: 1 / sqrt(head_dim) at any width",
            at_least(0), at_most(1 << 16));
    v.field("dropout", dropout, "dropout rates in training");
    v.field("moe", moe, "router and experts of moe and residual_moe layers");
    v.field("blocks", blocks, "the layers, first to last", not_empty);
  }
  void validate(Problems& problems) const;

  std::vector<BlockSpec> layers() const;  // `blocks` written out
  int64_t layer_count() const;            // of them, without writing them out
  bool has(FfnKind ffn) const;            // does a layer?
  bool has_experts() const { return has(FfnKind::moe) || has(FfnKind::residual_moe); }
  std::vector<int> expert_parallel_sizes() const;  // of the MoE layers, with repetitions

  // Derived sizes; the zero defaults resolved.
  int64_t padded_vocab() const { return (vocab_size + vocab_multiple - 1) / vocab_multiple * vocab_multiple; }
  int64_t head_width() const { return head_dim > 0 ? head_dim : hidden / heads; }
  int64_t key_value_heads() const { return kv_heads > 0 ? kv_heads : heads; }
  int64_t ffn_width() const { return ffn_hidden > 0 ? ffn_hidden : 4 * hidden; }
  double score_scale() const {
    if (attention_scale > 0) return attention_scale;
    const auto width = static_cast<double>(head_width()), base = static_cast<double>(mup_base_head_dim);
    return (base > 0 ? std::sqrt(base / width) : 1.0) / std::sqrt(width);
  }
  int64_t expert_width() const { return moe.expert_hidden > 0 ? moe.expert_hidden : ffn_width(); }
  int64_t residual_width() const { return moe.residual_hidden > 0 ? moe.residual_hidden : ffn_width(); }
};

// The model as it is laid out on `world_size` ranks: each layer's experts are shared by the largest number of
// ranks, up to its expert_parallel, that divides both the world and the experts. So one config runs on a
// cluster and on a laptop.
ModelConfig fit_to_ranks(ModelConfig config, int world_size);
// What tensor parallelism cuts into equal parts: in words, how many there are, and the key that says so.
struct CutSize {
  const char* key;
  const char* what;
  int64_t size;
};
std::vector<CutSize> cut_sizes(const ModelConfig& config);
// Lets up to `ranks` ranks share the experts of every layer, whatever the config says: fit_to_ranks() then
// finds how many can.
ModelConfig share_experts(ModelConfig config, int ranks);

// Parameters and arithmetic of a model; pure functions of its config.
struct ModelCounts {
  int64_t parameters = 0;         // all
  int64_t active_parameters = 0;  // read for one token: top-k experts instead of all
  int64_t expert_parameters = 0;  // in experts
  double flops_per_token = 0;  // forward and backward: 6 x active matrix parameters + 12 x layers x T x width
};
ModelCounts count(const ModelConfig& config, int64_t sequence_length);

}  // namespace ziggurat::model

namespace ziggurat::nn {
inline std::vector<EnumName> enum_names(MlpKind) {
  return {{MlpKind::gelu_tanh, "gelu_tanh"},
          {MlpKind::gelu_erf, "gelu_erf"},
          {MlpKind::swiglu, "swiglu"},
          {MlpKind::swiglu_linear, "swiglu_linear"}};
}
inline std::vector<EnumName> enum_names(NormKind) {
  return {{NormKind::layer_norm, "layer_norm"}, {NormKind::rms_norm, "rms_norm"}};
}
inline std::vector<EnumName> enum_names(QkNorm) {
  return {{QkNorm::none, "none"}, {QkNorm::head, "head"}, {QkNorm::width, "width"}};
}
}  // namespace ziggurat::nn
