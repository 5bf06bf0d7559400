// Is a checkpoint's model the one that the config describes?
#pragma once

#include <vector>

#include <ziggurat/config/config.h>
#include <ziggurat/model/model_config.h>

namespace ziggurat::model {

// What computes something else, as "key: before -> after"; keys begin with "model.". The name, how the list
// of layers is spelled, defaults written out and expert_parallel make no difference.
std::vector<ConfigDifference> model_differences(const ModelConfig& before, const ModelConfig& after);

}  // namespace ziggurat::model
