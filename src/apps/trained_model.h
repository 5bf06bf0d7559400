// The model of a checkpoint, ready to be asked.
#pragma once

#include <memory>
#include <string>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/model/gpt.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::apps {

// The weights of a checkpoint as a model. Collective: the ranks of `world` share the experts as they would in
// training. Both must outlive it.
//   rows    weights as a checkpoint has them
//   packed  and copies of those of linear layers, for the matrix library: as much memory again, for reading
//           much at once
//   panels  weights in panels, in place: for texts that are written side by side
enum class WeightForm { rows, packed, panels };
class LoadedModel {
 public:
  LoadedModel(CheckpointReader& checkpoint, const train::RunConfig& config, Communicator& world,
              WeightForm form = WeightForm::rows);

  const model::Gpt& model() const { return *model_; }
  model::Gpt& model() { return *model_; }
  const nn::ParamStore& weights() const { return *store_; }

 private:
  std::unique_ptr<ProcessGroups> groups_;
  std::unique_ptr<nn::ParamStore> store_;
  std::unique_ptr<model::Gpt> model_;
};

class TrainedModel {
 public:
  // Collective over `world`, as LoadedModel.
  // `checkpoint`: as CheckpointReader. `precision`: of activations and products, bf16 or fp32; empty: as in
  // training. `tokenizer`: a path, or empty: the one that the model was trained with. `average`: the averages
  // of the weights instead of them. `expert_parallel`: ranks that may share experts; 0: as in training.
  TrainedModel(const std::string& checkpoint, const std::string& precision, const std::string& tokenizer,
               bool average, Communicator& world, WeightForm form = WeightForm::rows,
               int expert_parallel = 0);

  const train::RunConfig& config() const { return config_; }
  const model::Gpt& model() const { return loaded_->model(); }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const std::string& path() const { return reader_.path(); }
  int64_t step() const { return reader_.manifest().step; }

  // A function of the weights alone, experts one by one: not of files, ranks or optimizer state. Collective.
  std::string weight_hash() const;

 private:
  CheckpointReader reader_;
  train::RunConfig config_;
  Communicator& world_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<LoadedModel> loaded_;
};

}  // namespace ziggurat::apps
