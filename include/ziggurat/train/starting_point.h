// Weights from elsewhere as the beginning of a run.
#pragma once

#include <string>

#include <ziggurat/nn/param_store.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

// Saves the masters of `weights`, which holds the whole model in this process, as a checkpoint of step 0 into
// `folder`: no data has been seen and the optimizer's moments are zero, so a run of `config` with any data
// and seed goes on from it. `tokenizer_fingerprint`: of the tokenizer that the weights know; may be empty.
void save_starting_point(const RunConfig& config, nn::ParamStore& weights,
                         const std::string& tokenizer_fingerprint, const std::string& folder);

}  // namespace ziggurat::train
