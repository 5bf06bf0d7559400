// A model's parameters without their memory.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <ziggurat/model/model_config.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat::model {

// Names and shapes of all parameters of the whole model, in the order in which it registers them.
std::vector<std::pair<std::string, Shape>> parameter_shapes(const ModelConfig& config);

}  // namespace ziggurat::model
