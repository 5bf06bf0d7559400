#include <algorithm>
#include <cmath>

#include <ziggurat/hf/form.h>

namespace ziggurat::hf {

using model::FfnKind;
using model::ModelConfig;
using moe::Renormalise;

namespace {

struct Need {
  bool met;
  const char* otherwise;  // what the model has instead
};

std::optional<std::string> first_unmet(std::initializer_list<Need> needs) {
  for (const Need& need : needs) {
    if (!need.met) return need.otherwise;
  }
  return std::nullopt;
}

struct LayerKinds {
  bool dense = false, moe = false, residual = false, same_experts = true;
};

LayerKinds kinds_of(const ModelConfig& c) {
  LayerKinds kinds;
  int64_t experts = 0;
  for (const model::BlockSpec& layer : c.layers()) {
    kinds.dense |= layer.ffn == FfnKind::dense;
    kinds.moe |= layer.ffn == FfnKind::moe;
    kinds.residual |= layer.ffn == FfnKind::residual_moe;
    if (layer.ffn == FfnKind::dense) continue;
    kinds.same_experts &= experts == 0 || experts == layer.experts;
    experts = layer.experts;
  }
  return kinds;
}

// Do a token's weights add up to 1 when nothing is dropped?
bool weights_sum_to_one(const ModelConfig& c) {
  if (c.moe.renormalise != Renormalise::none) return true;
  const std::vector<model::BlockSpec> layers = c.layers();
  return std::all_of(layers.begin(), layers.end(), [&](const model::BlockSpec& layer) {
    return layer.ffn == FfnKind::dense || layer.experts == c.moe.top_k;
  });
}

Need same_qk_norm(ModelClass model_class, const ModelConfig& c) {
  const char* const otherwise[] = {"it does not normalise queries and keys",
                                   "it normalises queries and keys over each head",
                                   "it normalises queries and keys over the width of all heads"};
  return {c.qk_norm == qk_norm_of(model_class), otherwise[static_cast<int>(c.qk_norm)]};
}

// With the same window in every layer.
bool has_window(ModelClass model_class) {
  return model_class == ModelClass::mixtral || model_class == ModelClass::qwen3_moe;
}

// What native classes lack, but for a window most of them.
std::optional<std::string> foreign_part(ModelClass model_class, const ModelConfig& c) {
  const double usual = 1.0 / std::sqrt(static_cast<double>(c.head_width()));
  const bool experts = c.has_experts();
  return first_unmet(
      {{c.score_scale() == usual, "its attention scores are not scaled by 1 / sqrt(head_dim)"},
       {c.window == 0 || has_window(model_class), "its attention slides over a window"},
       {c.activation != nn::MlpKind::swiglu_linear, "its MLPs have four matrices"},
       {!c.has(FfnKind::residual_moe) || c.moe.residual_mix != moe::ResidualMix::sequential,
        "its residual MoE layers have an MLP after the experts"},
       {!experts || c.moe.score == moe::RouterScore::softmax, "its router's scores are sigmoids"},
       {!experts || c.moe.weight_scale == 1, "its experts' weights are scaled"},
       {!experts || c.moe.expert_groups == 1, "its experts are chosen by groups"},
       {!experts || !c.moe.balance_bias, "its experts are chosen with a bias"}});
}

std::optional<std::string> llama_block_obstacle(ModelClass model_class, const ModelConfig& c) {
  return first_unmet({{c.norm == nn::NormKind::rms_norm, "it has layer norms"},
                      {c.positions == model::Positions::rope, "it has learned positions"},
                      {c.activation == nn::MlpKind::swiglu, "its MLPs are not gated (SwiGLU)"},
                      same_qk_norm(model_class, c)});
}

}  // namespace

const char* class_name(ModelClass model_class) {
  switch (model_class) {
    case ModelClass::gpt2:
      return "GPT2LMHeadModel";
    case ModelClass::llama:
      return "LlamaForCausalLM";
    case ModelClass::mixtral:
      return "MixtralForCausalLM";
    case ModelClass::qwen2_moe:
      return "Qwen2MoeForCausalLM";
    case ModelClass::qwen3:
      return "Qwen3ForCausalLM";
    case ModelClass::qwen3_moe:
      return "Qwen3MoeForCausalLM";
    case ModelClass::olmoe:
      return "OlmoeForCausalLM";
    case ModelClass::ziggurat:
      return "ZigguratForCausalLM";
  }
  return "";
}

nn::QkNorm qk_norm_of(ModelClass model_class) {
  switch (model_class) {
    case ModelClass::qwen3:
    case ModelClass::qwen3_moe:
      return nn::QkNorm::head;
    case ModelClass::olmoe:
      return nn::QkNorm::width;
    default:
      return nn::QkNorm::none;
  }
}

std::optional<std::string> obstacle(ModelClass model_class, const ModelConfig& c) {
  const LayerKinds kinds = kinds_of(c);
  const bool heads_fill_width = c.heads * c.head_width() == c.hidden;
  const auto llama_block_and = [&](std::initializer_list<Need> needs) {
    auto found = llama_block_obstacle(model_class, c);
    return found ? found : first_unmet(needs);
  };
  const Need experts{kinds.moe, "it has no experts"},
      no_experts{!kinds.moe && !kinds.residual, "it has experts"},
      no_dense{!kinds.dense, "it has dense layers"},
      no_residual{!kinds.residual, "it has residual MoE layers"},
      full_heads{heads_fill_width, "its heads are not hidden / heads wide"},
      no_bias{!c.bias, "its linear layers have biases"},
      same_experts{kinds.same_experts, "its layers have different numbers of experts"};
  if (model_class != ModelClass::ziggurat) {
    if (auto found = foreign_part(model_class, c)) return found;
  }
  switch (model_class) {
    case ModelClass::gpt2:
      return first_unmet({no_experts,
                          {c.norm == nn::NormKind::layer_norm, "it has RMS norms"},
                          {c.positions == model::Positions::learned, "it has rotary positions"},
                          {c.activation != nn::MlpKind::swiglu, "its MLPs are gated (SwiGLU)"},
                          {c.key_value_heads() == c.heads, "it has fewer key heads than heads"},
                          full_heads,
                          same_qk_norm(model_class, c)});
    case ModelClass::llama:
      return llama_block_and(
          {no_experts, {c.hidden % c.heads == 0, "its hidden width is no multiple of its heads"}});
    case ModelClass::mixtral:
      return llama_block_and({experts,
                              no_residual,
                              no_dense,
                              same_experts,
                              no_bias,
                              {weights_sum_to_one(c), "its experts' weights do not sum to 1"}});
    case ModelClass::qwen2_moe:  // other widths of heads than hidden / heads load in transformers, not in
                                 // vLLM
      return llama_block_and(
          {{kinds.moe || kinds.residual, "it has no experts"},
           {!kinds.residual || c.moe.residual_mix == moe::ResidualMix::sigmoid,
            "its residual MoE layers are not mixed by a sigmoid"},
           {!kinds.residual || !c.moe.coefficient_bias, "its sigmoid gate has a bias"},
           {!kinds.residual || !kinds.moe, "not all of its layers with experts are residual"},
           same_experts,
           no_bias,
           full_heads});
    case ModelClass::qwen3:
      return llama_block_and({no_experts, no_bias});
    case ModelClass::qwen3_moe:
      return llama_block_and({experts, no_residual, same_experts, no_bias});
    case ModelClass::olmoe:
      return llama_block_and({experts, no_residual, no_dense, same_experts, no_bias, full_heads});
    case ModelClass::ziggurat:
      return std::nullopt;
  }
  return std::nullopt;
}

Form choose_form(const ModelConfig& c) {
  // Zeros stand for the biases and the shared expert that a class has and the model lacks. The expert's width
  // can be split by the usual tensor-parallel sizes.
  constexpr int64_t kSharedExpertWidth = 8;
  for (const ModelClass model_class : kNativeClasses) {
    if (obstacle(model_class, c)) continue;
    switch (model_class) {
      case ModelClass::gpt2:
        return {model_class, true, true, true};
      case ModelClass::qwen2_moe:
        return {model_class, true, false, false,  // vLLM always has qkv biases
                c.has(FfnKind::residual_moe) ? c.residual_width() : kSharedExpertWidth};
      default:
        return {model_class, c.bias, c.bias, c.bias};
    }
  }
  return {ModelClass::ziggurat, c.bias, c.bias, c.bias};
}

std::vector<std::string> not_expressed(const Form& form, const ModelConfig& c) {
  std::vector<std::string> notes;
  const LayerKinds kinds = kinds_of(c);
  if (kinds.moe || kinds.residual) {
    if (c.moe.drop != moe::DropPolicy::none) {
      notes.push_back(fmt::format(
          "Training dropped tokens over an expert's capacity (drop {}, capacity factor {}); the exported "
          "model drops none.",
          enum_text(c.moe.drop), c.moe.capacity_factor));
    }
    if (c.moe.eval_capacity_factor > 0 && c.moe.drop != moe::DropPolicy::none) {
      notes.push_back(
          fmt::format("Validation dropped tokens too (eval_capacity_factor {}): its losses are those of a "
                      "model with drops.",
                      c.moe.eval_capacity_factor));
    }
    if (c.moe.choice_noise != moe::ChoiceNoise::none || c.moe.jitter > 0) {
      notes.push_back(fmt::format(
          "The router had noise in training (choice_noise {}, jitter {}); the exported one has none.",
          enum_text(c.moe.choice_noise), c.moe.jitter));
    }
    if (c.moe.balance_coefficient > 0 || c.moe.z_coefficient > 0) {
      notes.push_back(
          fmt::format("Balancing losses (balance_coefficient {}, z_coefficient {}) are not part of the "
                      "exported code, or have another form there.",
                      c.moe.balance_coefficient, c.moe.z_coefficient));
    }
  }
  const bool only_attention =
      form.model_class != ModelClass::gpt2 && form.model_class != ModelClass::ziggurat;
  if (only_attention && (c.dropout.embedding > 0 || c.dropout.hidden > 0)) {
    notes.push_back(
        fmt::format("{} has no dropout after the embeddings and sub-layers (embedding {}, hidden {}).",
                    class_name(form.model_class), c.dropout.embedding, c.dropout.hidden));
  }
  return notes;
}

}  // namespace ziggurat::hf
