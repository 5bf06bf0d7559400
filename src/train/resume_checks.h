// May this run go on from that checkpoint?
#pragma once

#include <string>
#include <vector>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/data/sample_source.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

// The names under which a parameter's master and moments are saved.
std::vector<std::string> saved_names(const std::string& parameter);

// Throws Error(config) listing every difference of model, tokenizer and tensors, with the key that allows
// them; Error(checkpoint) for tensors that the model needs and the checkpoint lacks, another seed, other
// data. `parameters`: names of the whole model.
void check_resumable(const CheckpointReader& checkpoint, const RunConfig& config, const SampleSource& data,
                     const std::vector<std::string>& parameters);

// One line for each other key that differs.
void tell_changes(const CheckpointReader& checkpoint, const RunConfig& config);

}  // namespace ziggurat::train
