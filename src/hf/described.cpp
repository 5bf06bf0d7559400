// Between the entries of config.json and a model.
#include <algorithm>

#include "hf/config_entries.h"

namespace ziggurat::hf {

using model::BlockSpec;
using model::FfnKind;
using model::ModelConfig;

Described described(const Form& form, const ModelConfig& config) {
  Described d{.model = config, .form = form};
  ModelConfig& m = d.model;
  m.head_dim = config.head_width();
  m.kv_heads = config.key_value_heads();
  m.ffn_hidden = config.ffn_width();
  m.moe.expert_hidden = config.expert_width();
  m.moe.residual_hidden = config.residual_width();
  if (config.mup_base_head_dim > 0) m.attention_scale = config.score_scale();
  d.renormalised = m.moe.renormalise != moe::Renormalise::none;
  for (const BlockSpec& layer : config.layers()) {
    if (layer.ffn == FfnKind::dense) d.dense_layers.push_back(d.layers);
    if (layer.ffn != FfnKind::dense) d.experts = layer.experts;
    d.ffn_kinds.push_back(enum_text(layer.ffn));
    d.ffn_experts.push_back(layer.experts);
    ++d.layers;
  }
  return d;
}

namespace {

bool same_layers(const std::vector<BlockSpec>& a, const std::vector<BlockSpec>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const BlockSpec& x, const BlockSpec& y) {
    return x.ffn == y.ffn && x.experts == y.experts;
  });
}

// The shortest pattern that, repeated, gives the layers; `known` blocks stay as they are where they do.
std::vector<model::BlockRun> to_blocks(const std::vector<BlockSpec>& layers, const ModelConfig& known) {
  if (same_layers(layers, known.layers())) return known.blocks;
  size_t period = 1;
  const auto repeats = [&] {
    if (layers.size() % period != 0) return false;
    return same_layers({layers.begin() + static_cast<int64_t>(period), layers.end()},
                       {layers.begin(), layers.end() - static_cast<int64_t>(period)});
  };
  while (!repeats()) ++period;
  return {{static_cast<int64_t>(layers.size() / period),
           {layers.begin(), layers.begin() + static_cast<int64_t>(period)}}};
}

class ModelBuilder {
 public:
  ModelBuilder(Described d, bool with_shared_expert, const ModelConfig& base, const std::string& where)
      : d_(std::move(d)), with_shared_expert_(with_shared_expert), base_(base), where_(where) {}

  ModelConfig build() {
    ModelConfig& m = d_.model;
    const ModelClass model_class = d_.form.model_class;
    if (model_class != ModelClass::ziggurat) {
      const bool gpt2_like = model_class == ModelClass::gpt2;
      m.norm = gpt2_like ? nn::NormKind::layer_norm : nn::NormKind::rms_norm;
      m.positions = gpt2_like ? model::Positions::learned : model::Positions::rope;
      m.qk_norm = qk_norm_of(model_class);
      if (gpt2_like) m.kv_heads = 0;
      if (gpt2_like || model_class == ModelClass::olmoe) m.head_dim = 0;
      if (model_class == ModelClass::mixtral) d_.renormalised = true;
      m.bias = use_biases();
    }
    if (m.attention_scale > 0) m.mup_base_head_dim = 0;
    m.moe.renormalise = renormalise();
    m.blocks = to_blocks(layers(), base_);
    if (model_class == ModelClass::qwen2_moe && with_shared_expert_) {
      m.moe.residual_mix = moe::ResidualMix::sigmoid;
      m.moe.coefficient_bias = false;
      m.moe.residual_hidden = d_.form.shared_expert_width;
    }
    write_widths_once(m);
    return m;
  }

 private:
  // ffn_hidden, and others only where they differ. Mixtral and OLMoE have no word for a dense layer's width.
  void write_widths_once(ModelConfig& m) const {
    const int64_t expert = m.expert_width(), residual = m.residual_width();
    const bool says_one =
        d_.form.model_class != ModelClass::mixtral && d_.form.model_class != ModelClass::olmoe;
    if (m.has_experts() && !says_one) m.ffn_hidden = expert;
    m.moe.expert_hidden = !m.has_experts() || expert == m.ffn_width() ? 0 : expert;
    m.moe.residual_hidden = !m.has(FfnKind::residual_moe) || residual == m.ffn_width() ? 0 : residual;
  }

  // Zero biases may stand for none: then the base, a run of ours, says so.
  bool use_biases() const {
    const Form& f = d_.form;
    const bool there = f.qkv_bias || f.out_bias || f.mlp_bias;
    return there && (base_.bias || base_.blocks.empty());
  }

  moe::Renormalise renormalise() const {
    const bool was = base_.moe.renormalise != moe::Renormalise::none;
    if (was == d_.renormalised) return base_.moe.renormalise;
    return d_.renormalised ? moe::Renormalise::chosen : moe::Renormalise::none;
  }

  std::vector<BlockSpec> layers() const {
    std::vector<BlockSpec> all(static_cast<size_t>(d_.layers));
    const FfnKind with_experts = with_shared_expert_ ? FfnKind::residual_moe : FfnKind::moe;
    switch (d_.form.model_class) {
      case ModelClass::gpt2:
      case ModelClass::llama:
      case ModelClass::qwen3:
        break;
      case ModelClass::mixtral:
      case ModelClass::qwen2_moe:
      case ModelClass::qwen3_moe:
      case ModelClass::olmoe:
        for (int64_t i = 0; i < d_.layers; ++i) {
          const bool dense = std::count(d_.dense_layers.begin(), d_.dense_layers.end(), i) > 0 ||
                             (i + 1) % std::max<int64_t>(d_.sparse_step, 1) != 0 || d_.experts == 0;
          if (!dense) all[static_cast<size_t>(i)] = {with_experts, d_.experts};
        }
        break;
      case ModelClass::ziggurat:
        check(
            d_.ffn_kinds.size() == all.size() && d_.ffn_experts.size() == all.size(), ErrorKind::checkpoint,
            "{}: expected 'ffn_kinds' and 'ffn_experts' of the {} layers of 'num_hidden_layers', got {} and "
            "{}; take the config.json that came with the weights",
            where_, all.size(), d_.ffn_kinds.size(), d_.ffn_experts.size());
        for (size_t i = 0; i < all.size(); ++i) all[i] = {kind_of(d_.ffn_kinds[i]), d_.ffn_experts[i]};
    }
    return all;
  }

  FfnKind kind_of(const std::string& word) const {
    std::string known;
    for (const EnumName& n : enum_names(FfnKind{})) {
      if (n.name == word) return static_cast<FfnKind>(n.value);
      known += (known.empty() ? "" : ", ") + n.name;
    }
    fail(ErrorKind::checkpoint,
         "{}: 'ffn_kinds' has '{}'; expected {}. Take the config.json that came with the weights", where_,
         word, known);
  }

  Described d_;
  const bool with_shared_expert_;
  const ModelConfig& base_;
  const std::string& where_;
};

}  // namespace

ModelConfig model_of(Described d, bool with_shared_expert, const ModelConfig& base,
                     const std::string& where) {
  return ModelBuilder(std::move(d), with_shared_expert, base, where).build();
}

}  // namespace ziggurat::hf
