// May this run go on from that checkpoint?
#pragma once

#include <set>
#include <string>
#include <vector>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/data/sample_source.h>
#include <ziggurat/optim/optimizer_state.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

// A parameter of the whole model, and the names under which its moments are saved.
struct SavedParameter {
  std::string name;
  std::vector<std::string> moments;
};
std::vector<SavedParameter> saved_parameters(const OptimizerState& state);
inline std::string saved_name(const std::string& moment, const std::string& parameter) {
  return moment + "." + parameter;
}
// Is it "adam.m.PARAMETER", or what other optimizers keep, of one of these parameters?
bool is_moment_of(const std::string& name, const std::set<std::string>& parameters);

// Of the weights (OptimizerConfig::average).
bool holds_average(const CheckpointReader& checkpoint);

// Throws Error(config) listing every difference of model, tokenizer and tensors, with the key that allows
// them; Error(checkpoint) for tensors that the model needs and the checkpoint lacks, another seed, other
// data. Of step 0, where moments are zero, those of any optimizer may be missing; of any step, the average of
// weights may.
void check_resumable(const CheckpointReader& checkpoint, const RunConfig& config, const SampleSource& data,
                     const std::vector<SavedParameter>& parameters);

// One line for each other key that differs.
void tell_changes(const CheckpointReader& checkpoint, const RunConfig& config);

}  // namespace ziggurat::train
