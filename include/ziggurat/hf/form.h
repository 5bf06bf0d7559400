// Which class of Hugging Face transformers a model is, exactly: same function of the tokens, up to rounding.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <ziggurat/model/model_config.h>

namespace ziggurat::hf {

enum class ModelClass {
  gpt2,
  llama,
  mixtral,
  qwen2_moe,
  qwen3,
  qwen3_moe,
  olmoe,
  ziggurat,  // the code that an export brings along: any model of ours
};
inline constexpr ModelClass kNativeClasses[] = {
    ModelClass::gpt2,  ModelClass::llama,     ModelClass::mixtral, ModelClass::qwen2_moe,
    ModelClass::qwen3, ModelClass::qwen3_moe, ModelClass::olmoe};

const char* class_name(ModelClass model_class);  // "GPT2LMHeadModel"

// A class, and where it leaves a choice, which of its parts have tensors.
struct Form {
  ModelClass model_class = ModelClass::ziggurat;
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
  int64_t shared_expert_width = 0;  // Qwen2-MoE's, which is always there: zeros where the model has none
};

// What the class does with queries and keys; our own: whatever its config.json says.
nn::QkNorm qk_norm_of(ModelClass model_class);

// Why the class cannot express the model; nullopt if it can.
std::optional<std::string> obstacle(ModelClass model_class, const model::ModelConfig& config);

// The native class without an obstacle, else the code that comes along.
Form choose_form(const model::ModelConfig& config);

// The text of config.json. `eod`: the token that ends a document; -1: none.
nlohmann::ordered_json to_config_json(const Form& form, const model::ModelConfig& config, DType dtype,
                                      int64_t eod);

// What config.json says, on top of `base`, which keeps its values where a class has no word for them (how
// experts drop tokens in training, ...). Throws Error(checkpoint) naming `where` and the entry for a model
// that cannot be expressed here. with_shared_expert: Qwen2-MoE's shared expert is part of the model, not
// zeros. notes: gets a sentence where the model is the same only for some inputs, as for sequences within the
// window that its attention looks back over. tensors: how many the folder holds; more layers or experts than
// that are refused before a list of them is made.
std::pair<Form, model::ModelConfig> from_config_json(const nlohmann::json& json,
                                                     const model::ModelConfig& base, const std::string& where,
                                                     bool with_shared_expert = false,
                                                     std::vector<std::string>* notes = nullptr,
                                                     int64_t tensors = INT64_MAX);

// What training did and the exported model does not: one sentence each.
std::vector<std::string> not_expressed(const Form& form, const model::ModelConfig& config);

}  // namespace ziggurat::hf
