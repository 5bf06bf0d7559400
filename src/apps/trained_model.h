// The model of a checkpoint, ready to be asked.
#pragma once

#include <memory>
#include <string>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/train/loaded_model.h>

namespace ziggurat::apps {

using train::LoadedModel;
using train::WeightForm;

// Of texts that are written side by side, by --weights: int8, or empty.
inline WeightForm form_of(const std::string& weights) {
  return weights == "int8" ? WeightForm::int8 : WeightForm::panels;
}

class TrainedModel {
 public:
  // Collective over `world`, as LoadedModel.
  // `checkpoint`: as CheckpointReader. `precision`: of activations and products, bf16 or fp32; empty: as in
  // training. `tokenizer`: a path, or empty: the one that the model was trained with. `average`: the averages
  // of the weights instead of them.
  TrainedModel(const std::string& checkpoint, const std::string& precision, const std::string& tokenizer,
               bool average, Communicator& world, WeightForm form, const model::InferenceLayout& layout,
               Device device = Device::cpu);

  const train::RunConfig& config() const { return config_; }
  const model::Gpt& model() const { return loaded_->model(); }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const std::string& path() const { return reader_.path(); }
  int64_t step() const { return reader_.manifest().step; }

  Communicator& teams() const { return loaded_->teams(); }
  std::string weight_hash() { return loaded_->weight_hash(&reader_); }  // collective; not after take_form
  void take_form(WeightForm form) { loaded_->take_form(form); }

 private:
  CheckpointReader reader_;
  train::RunConfig config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<LoadedModel> loaded_;
};

}  // namespace ziggurat::apps
