// Which parameters OptimizerConfig::clip_groups clips by which norm. Groups are numbered: 0 is what no group
// takes, which clip_grad is of, and then they come as the config names them.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/nn/param_store.h>
#include <ziggurat/optim/optimizer_config.h>

namespace ziggurat {

int clip_group_of(const OptimizerConfig& config, const std::string& parameter);
// Of every entry of the store, in order.
std::vector<int> clip_groups_of(const OptimizerConfig& config, const nn::ParamStore& store);
const std::string& name_of_clip_group(const OptimizerConfig& config, size_t group);
double clip_norm_of(const OptimizerConfig& config, size_t group);

// `parameters` are the names of all of the model's. Throws Error(config) for a group that takes none of them.
void check_clip_groups(const OptimizerConfig& config, const std::vector<std::string>& parameters);

}  // namespace ziggurat
