#include "apps/task_evaluator.h"

#include <ziggurat/core/log.h>
#include <ziggurat/eval/evaluate.h>

namespace ziggurat::apps {

namespace {
constexpr eval::Form kForm = eval::Form::current;
}

TaskEvaluator::TaskEvaluator(const train::RunConfig& config, Communicator& world)
    : config_(config), world_(world) {
  check(!config.data.tokenizer.empty(), ErrorKind::config,
        "eval.tasks: texts need the run's tokenizer: name it in data.tokenizer");
  check(
      config.device == Device::cpu, ErrorKind::config,
      "eval.tasks: a run on a GPU has taken its memory before the first step, and none for texts; leave the "
      "key out and use `ziggurat eval` with the checkpoints");
  tokenizer_ = load_tokenizer(config.data.tokenizer);
  check(tokenizer_->vocab_size() <= config.model.vocab_size, ErrorKind::config,
        "data.tokenizer: {} has {} tokens, but model.vocab_size is {}", config.data.tokenizer,
        tokenizer_->vocab_size(), config.model.vocab_size);
  for (const std::string& name : config.eval.tasks) {
    tasks_.push_back(
        eval::load_task(name, {.data = config.eval.data, .form = kForm, .limit = config.eval.tasks_limit}));
    const eval::Task& task = tasks_.back();
    eval::check_task(task, kForm, *tokenizer_, config.batch.sequence_length);
    if (!task.note.empty() && world.rank() == 0) warn("eval.tasks: {} {}", task.name, task.note);
  }
}

std::vector<train::NamedScore> TaskEvaluator::operator()(const model::Gpt& model) const {
  eval::Scorer scorer(model, world_,
                      {.length = config_.batch.sequence_length, .reproducible = config_.reproducible});
  std::vector<train::NamedScore> scores;
  for (const eval::Task& task : tasks_) {
    for (const eval::Metric& metric : eval::evaluate(task, kForm, *tokenizer_, scorer).metrics) {
      scores.push_back({task.name + " " + metric.name, metric.value});
    }
  }
  return scores;
}

}  // namespace ziggurat::apps
