// The weights of a folder of Hugging Face transformers in a model of ours.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/hf/form.h>
#include <ziggurat/hf/model_folder.h>
#include <ziggurat/nn/param_store.h>

namespace ziggurat::hf {

// The class and the model of config.json (see from_config_json). Biases of q, k and v that are all zero, as
// an export to Qwen2-MoE has them, are none.
std::pair<Form, model::ModelConfig> read_config(const ModelFolder& folder, const model::ModelConfig& base);

// Fills the masters of `store`, whose model is `config`, or a model that `config` was upcycled to. Rows that
// pad the vocabulary and biases that the class lacks become zero; what upcycling adds keeps its initial
// values. Returns what was skipped: computed tables that old folders carry.
// Throws Error(checkpoint) naming the tensor where one is missing, has another shape or dtype, or has no
// place in the model. A second copy of a tied embedding must be equal to it.
std::vector<std::string> read_weights(const ModelFolder& folder, const Form& form,
                                      const model::ModelConfig& config, nn::ParamStore& store);

}  // namespace ziggurat::hf
