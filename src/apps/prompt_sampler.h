// Texts that a model writes while it is trained.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/infer/engine.h>
#include <ziggurat/train/run_config.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::apps {

class PromptSampler {
 public:
  // Reads eval.prompts and the tokenizer, so that what is wrong with them shows before training. Throws
  // Error(config) naming the key and the cure.
  explicit PromptSampler(const train::RunConfig& config);

  // As TaskEvaluator::device_bytes().
  int64_t device_bytes(const model::Gpt& model) const;

  // How the model goes on after each prompt, the same for the same weights. Collective: with experts on
  // several ranks all of them read the same prompts.
  std::vector<train::Sample> operator()(const model::Gpt& model) const;

 private:
  infer::Engine engine_of(const model::Gpt& model) const;

  train::RunConfig config_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<std::string> prompts_;
  std::vector<std::vector<int32_t>> ids_;  // of each
};

}  // namespace ziggurat::apps
