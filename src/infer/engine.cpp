#include <algorithm>
#include <exception>
#include <mutex>

#include "infer/step_message.h"
#include <ziggurat/core/flight_log.h>
#include <ziggurat/infer/engine.h>
#include <ziggurat/infer/next_token.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::infer {

namespace {

bool slides(const model::ModelConfig& config) { return config.positions == model::Positions::rope; }

int64_t window_of(const model::ModelConfig& config, const EngineOptions& options) {
  const int64_t window = options.window == 0 ? config.max_sequence : options.window;
  check(0 < window && window <= config.max_sequence, ErrorKind::argument,
        "[engine] expected a window of 1 to {} tokens (max_sequence), got {}", config.max_sequence, window);
  return window;
}

SchedulerOptions scheduler_options(const model::Gpt& model, const EngineOptions& options,
                                   const Communicator* world) {
  const model::ModelConfig& config = model.config();
  SchedulerOptions o;
  o.ranks = world == nullptr ? 1 : world->size() / model.alike_ranks();
  o.window = window_of(config, options);
  o.slides = slides(config);
  o.step_rows = options.step_rows;
  o.texts = options.texts;
  const int64_t tokens =
      options.cache_tokens == 0 ? cache_tokens_for(options.texts, o.window) : options.cache_tokens;
  o.blocks = std::max(tokens / o.block, int64_t{1});
  return o;
}

ExecutorOptions executor_options(const SchedulerOptions& options, Reproducible reproducible) {
  return {.blocks = options.blocks,
          .block = options.block,
          .window = options.slides ? options.window : 0,
          .reproducible = reproducible,
          .rows = options.step_rows,
          .table_blocks = cache_tokens_for(options.texts, options.window) / options.block};
}

}  // namespace

// A text that slides touches two blocks beside those of its window.
int64_t cache_tokens_for(int64_t texts, int64_t window) {
  constexpr int64_t kBlock = SchedulerOptions{}.block;
  return texts * (window / kBlock + 2) * kBlock;
}

Worker::Worker(const model::Gpt& model, const ExecutorOptions& options,
               const std::vector<TokenRange>& allowed)
    : vocabulary_(model.config().vocab_size), executor_(model, options) {
  for (int i = 0; i < thread_count(); ++i) samplers_.emplace_back(vocabulary_, allowed);
}

void Worker::help(const RankPlan& plan) {
  executor_.run(plan.pass, [](size_t, const Tensor&) {});
}

const std::vector<RowResult>& Worker::run(const RankPlan& plan) {
  results_.resize(plan.tasks.size());
  executor_.run(plan.pass, [&](size_t first, const Tensor& logits) {
    std::exception_ptr error = nullptr;
    std::mutex mutex;
    const auto rows = logits.dim(0);
    parallel_for(rows, [&](int64_t i) {
      const auto row = static_cast<size_t>(i);
      try {  // which must not leave a thread
        Sampler& sampler = samplers_[static_cast<size_t>(rows == 1 ? 0 : thread_index())];
        answer(plan.tasks[first + row], logits, row, sampler, results_[first + row]);
      } catch (...) {
        const std::lock_guard lock(mutex);
        error = std::current_exception();
      }
    });
    if (error) std::rethrow_exception(error);
  });
  return results_;
}

void Worker::answer(const RowTask& task, const Tensor& logits, size_t row, Sampler& sampler,
                    RowResult& result) {
  const auto r = static_cast<int64_t>(row);
  result.token = task.scored;
  if (task.scored < 0) {
    visit_float_dtype(logits.dtype(), [&]<class T>() {
      if constexpr (!std::is_same_v<T, bf16>) {
        result.token = sampler(logits.data<T>() + r * logits.dim(1), task.sampling,
                               {task.position, task.text, task.seen});
      }
    });
  }
  if (task.alternatives < 0) return;
  const Tensor of_row = logits.rows(r, r + 1);
  const NextToken next = next_tokens(of_row, vocabulary_).front();
  result.likelihood = {.logprob = next.log_probability(of_row, 0, result.token)};
  for (const int32_t token : likeliest_tokens(of_row, 0, vocabulary_, task.alternatives)) {
    result.likelihood.alternatives.emplace_back(token, next.log_probability(of_row, 0, token));
  }
}

Engine::Engine(const model::Gpt& model, const EngineOptions& options, Communicator* world)
    : world_(world),
      team_(model.alike_ranks()),
      scheduler_(scheduler_options(model, options, world)),
      worker_(model, executor_options(scheduler_.options(), options.reproducible), options.allowed),
      results_(static_cast<size_t>(scheduler_.options().ranks)) {}

void Engine::check(const TextRequest& request) const {
  Scheduler::check(request);
  for (const int32_t id : request.prompt) {
    ziggurat::check(0 <= id && id < vocabulary(), ErrorKind::argument,
                    "[engine] a prompt has token {}, outside the model's vocabulary of {}", id, vocabulary());
  }
}

void Engine::submit(TextRequest request) {
  check(request);
  scheduler_.submit(std::move(request));
}

void Engine::step(const TextEvents& events) {
  const std::span<const RankPlan> plans = scheduler_.plan(events);
  if (std::all_of(plans.begin(), plans.end(), [](const RankPlan& p) { return p.pass.rows() == 0; })) return;
  if (!alone()) {
    flight_log().begin_phase(Phase::step, scheduler_.counts().steps + 1);
    tell(plans);
  }
  results_.front() = worker_.run(plans.front());
  if (!alone()) {
    const int64_t longest = longest_answer(plans, vocabulary());
    exchange(longest);
    for (size_t r = 1; r < plans.size(); ++r) {
      const auto first = r * static_cast<size_t>(team_ * longest);
      const auto answer = std::span(answers_).subspan(first, static_cast<size_t>(longest));
      read_results(answer, plans[r].tasks, vocabulary(), results_[r]);
    }
  }
  scheduler_.commit(results_, events);
}

void Engine::keep_in_touch() {
  if (alone()) return;
  message_.assign(1, 0);
  write_pause(message_);
  send();
  world_->barrier();
}

void Engine::end() {
  if (alone()) return;
  tell({});
  flight_log().begin_phase(Phase::end, scheduler_.counts().steps);
}

void Engine::follow() {
  PlanOfRank mine;
  for (int64_t step = 1;; ++step) {
    flight_log().begin_phase(Phase::step, step);
    hear();
    const Told told = read_plan(message_, world_->rank() / team_, vocabulary(), mine);
    if (told == Told::end) return flight_log().begin_phase(Phase::end, step - 1);
    if (told == Told::pause) {
      world_->barrier();
      --step;
      continue;
    }
    const bool answers = world_->rank() % team_ == 0;
    if (!answers) worker_.help(mine.plan);
    const auto* results = answers ? &worker_.run(mine.plan) : nullptr;
    message_.clear();
    if (answers) write_results(*results, mine.plan.tasks, message_);
    exchange(mine.longest_answer);
  }
}

// Rank 0's message to all. Most fit a first part of fixed size, whose length nobody has to be told.
constexpr size_t kFirst = 1024;

void Engine::tell(std::span<const RankPlan> plans) {
  message_.assign(1, 0);
  write_plans(plans, message_);
  send();
}

void Engine::send() {
  message_[0] = static_cast<int32_t>(message_.size());
  hear();
}

void Engine::hear() {
  message_.resize(std::max(message_.size(), kFirst));
  const auto part = [&](size_t begin, size_t n) {
    return Tensor(message_.data() + begin, DType::i32, {static_cast<int64_t>(n)});
  };
  world_->await_broadcast(part(0, kFirst), 0, stream_);
  const auto size = static_cast<size_t>(message_[0]);
  message_.resize(std::max(size, kFirst));
  if (size > kFirst) world_->broadcast(part(kFirst, size - kFirst), 0, stream_).wait();
  message_.erase(message_.begin());
}

// What this rank has to answer, in message_, to all: so many numbers of each.
void Engine::exchange(int64_t longest) {
  if (longest == 0) return;
  message_.resize(static_cast<size_t>(longest));
  answers_.resize(static_cast<size_t>(longest * world_->size()));
  world_
      ->all_gather(Tensor(message_.data(), DType::i32, {longest}),
                   Tensor(answers_.data(), DType::i32, {std::ssize(answers_)}), stream_)
      .wait();
}

}  // namespace ziggurat::infer
