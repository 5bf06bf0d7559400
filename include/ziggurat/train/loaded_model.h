// The weights of a checkpoint as a model, which is asked but not trained.
#pragma once

#include <memory>
#include <string>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/model/gpt.h>
#include <ziggurat/model/inference_layout.h>
#include <ziggurat/plan/process_groups.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

//   rows    weights as a checkpoint has them
//   panels  weights in panels, in place: for texts that are written side by side
//   int8    the same, those of products as the nearest numbers of 8 bits (ParamStore::to_int8_panels)
// On a device they are rows, whatever is asked for: its matrix library wants no other.
enum class WeightForm { rows, panels, int8 };

struct LoadOptions {
  WeightForm form = WeightForm::rows;
  Device device = Device::cpu;
  Reproducible reproducible = Reproducible::layout;
  bool low_memory = false;  // activations of one block at a time, at the price of a copy after each
  model::InferenceLayout layout = {};  // of a model that `world` shares
};

class LoadedModel {
 public:
  // Without weights, of a config's model and precision; `groups` as layout_of() has them, so ranks share the
  // experts as they would in training.
  LoadedModel(const RunConfig& config, ProcessGroups groups, const LoadOptions& options);
  // With those of `checkpoint`, whose config this is. Collective over `world`, which must outlive it. Throws
  // Error(argument) for int8 of a model that computes in fp64.
  LoadedModel(CheckpointReader& checkpoint, const RunConfig& config, Communicator& world,
              const LoadOptions& options = {});

  void load(CheckpointReader& checkpoint);  // collective
  // From rows to another form, once.
  void take_form(WeightForm form);

  const model::Gpt& model() const { return *model_; }
  model::Gpt& model() { return *model_; }
  const nn::ParamStore& weights() const { return *store_; }
  // Ranks that have the same part of the model as this one, and texts of their own.
  Communicator& teams() const { return groups_.dp(); }

  // A function of the weights alone, experts one by one: not of files, ranks or optimizer state. Those that
  // ranks have cut, or that lie in panels, are read once more, as a whole, from the `checkpoint` that they
  // came from. Collective.
  std::string weight_hash(CheckpointReader* checkpoint = nullptr) const;

 private:
  LoadedModel(CheckpointReader& checkpoint, RunConfig config, model::PlacedModel placed, Communicator& world,
              const LoadOptions& options);

  ProcessGroups groups_;
  std::unique_ptr<nn::ParamStore> store_;
  std::unique_ptr<model::Gpt> model_;
};

}  // namespace ziggurat::train
