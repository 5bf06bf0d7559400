#pragma once

#include <string>

#include <ziggurat/hf/export.h>

namespace ziggurat::hf {

// README.md of an exported folder: what the model is, where it comes from, how it is loaded, what it lacks.
std::string model_card(const Exported& exported, const model::ModelConfig& config, DType dtype,
                       const Provenance& provenance, const Tokenizer* tokenizer);

}  // namespace ziggurat::hf
