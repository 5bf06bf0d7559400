// The model of a checkpoint, ready to be asked.
#pragma once

#include <memory>
#include <string>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/train/loaded_model.h>

namespace ziggurat::apps {

class TrainedModel {
 public:
  // Collective over `world`: its ranks share the experts as they would in training. It must outlive this.
  // `pass_tokens`: as in train::LoadedModel.
  // `checkpoint`: as CheckpointReader. `precision`: of activations and products, bf16 or fp32; empty: as in
  // training. `tokenizer`: a path, or empty: the one that the model was trained with.
  TrainedModel(const std::string& checkpoint, const std::string& precision, const std::string& tokenizer,
               Communicator& world, int64_t pass_tokens = 0);

  const train::RunConfig& config() const { return config_; }
  const model::Gpt& model() const { return loaded_->model(); }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const std::string& path() const { return reader_.path(); }
  int64_t step() const { return reader_.manifest().step; }

  std::string weight_hash() const { return loaded_->weight_hash(); }  // collective

 private:
  CheckpointReader reader_;
  train::RunConfig config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<train::LoadedModel> loaded_;
};

}  // namespace ziggurat::apps
