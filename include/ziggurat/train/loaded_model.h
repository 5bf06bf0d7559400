// The weights of a checkpoint as a model, which is asked but not trained.
#pragma once

#include <memory>
#include <string>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/model/gpt.h>
#include <ziggurat/plan/process_groups.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

//   rows    weights as a checkpoint has them
//   panels  weights in panels, in place: for texts that are written side by side
enum class WeightForm { rows, panels };

struct LoadOptions {
  WeightForm form = WeightForm::rows;
  Device device = Device::cpu;
  Reproducible reproducible = Reproducible::layout;
  bool low_memory = false;  // activations of one block at a time, at the price of a copy after each
};

class LoadedModel {
 public:
  // Without weights, of a config's model and precision; `groups` as layout_of() has them, so ranks share the
  // experts as they would in training.
  LoadedModel(const RunConfig& config, ProcessGroups groups, const LoadOptions& options);
  // With those of `checkpoint`, whose config this is. Collective over `world`, which must outlive it.
  LoadedModel(CheckpointReader& checkpoint, const RunConfig& config, Communicator& world,
              const LoadOptions& options = {});

  void load(CheckpointReader& checkpoint);  // collective

  const model::Gpt& model() const { return *model_; }
  model::Gpt& model() { return *model_; }
  const nn::ParamStore& weights() const { return *store_; }

  // A function of the weights alone, experts one by one: not of files, ranks or optimizer state. Collective.
  std::string weight_hash() const;

 private:
  ProcessGroups groups_;
  std::unique_ptr<nn::ParamStore> store_;
  std::unique_ptr<model::Gpt> model_;
};

}  // namespace ziggurat::train
