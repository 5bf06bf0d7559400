#include "apps/task_evaluator.h"

#include <algorithm>

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

eval::Scorer TaskEvaluator::scorer_of(const model::Gpt& model) const {
  return {model, world_, {.length = config_.batch.sequence_length, .reproducible = config_.reproducible}};
}

int64_t TaskEvaluator::device_bytes(const model::Gpt& model) const {
  const eval::Scorer scorer = scorer_of(model);
  int64_t most = 0;
  for (const eval::Task& task : tasks_) {
    most = std::max(most, eval::device_bytes(task, kForm, *tokenizer_, scorer));
  }
  return most;
}

std::vector<train::NamedScore> TaskEvaluator::operator()(const model::Gpt& model) const {
  eval::Scorer scorer = scorer_of(model);
  std::vector<train::NamedScore> scores;
  for (const eval::Task& task : tasks_) {
    for (const eval::Metric& metric : eval::evaluate(task, kForm, *tokenizer_, scorer).metrics) {
      scores.push_back({task.name + " " + metric.name, metric.value});
    }
  }
  return scores;
}

}  // namespace ziggurat::apps
