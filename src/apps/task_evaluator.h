// Zero-shot tasks while a model is trained.
#pragma once

#include <memory>
#include <vector>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/eval/scorer.h>
#include <ziggurat/eval/task.h>
#include <ziggurat/train/run_config.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::apps {

class TaskEvaluator {
 public:
  // Reads the tasks that config.eval names, so that what is wrong with them shows before training. `world`
  // must outlive this. Errors as eval::load_task(); config where there is no tokenizer, or one that does not
  // fit.
  TaskEvaluator(const train::RunConfig& config, Communicator& world);

  // What evaluating takes of the GPU that the model is on, beside what training has: a run takes it once
  // before its first step, so that it fails there or not at all. Collective.
  int64_t device_bytes(const model::Gpt& model) const;

  // One score a metric, e.g. {"lambada_openai acc", 0.31}. Collective.
  std::vector<train::NamedScore> operator()(const model::Gpt& model) const;

 private:
  eval::Scorer scorer_of(const model::Gpt& model) const;

  train::RunConfig config_;
  Communicator& world_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<eval::Task> tasks_;
};

}  // namespace ziggurat::apps
