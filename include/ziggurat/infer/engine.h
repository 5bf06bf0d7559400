// Writes texts: a scheduler, and a model that does what it says, on one rank or several.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/infer/executor.h>
#include <ziggurat/infer/sampler.h>
#include <ziggurat/infer/scheduler.h>

namespace ziggurat::infer {

// What one rank does with a plan.
class Worker {
 public:
  Worker(const model::Gpt& model, const ExecutorOptions& options, const std::vector<TokenRange>& allowed);

  // One result for each task, valid until the next run. Nothing is allocated, once it has seen such a plan,
  // but for likelihoods. Collective where experts are on several ranks.
  const std::vector<RowResult>& run(const RankPlan& plan);
  // The same where another rank, which works on the same rows, answers.
  void help(const RankPlan& plan);
  Executor& executor() { return executor_; }
  int64_t vocabulary() const { return vocabulary_; }

 private:
  void answer(const RowTask& task, const Tensor& logits, size_t row, Sampler& sampler, RowResult& result);

  int64_t vocabulary_;
  Executor executor_;
  std::vector<Sampler> samplers_;  // of each thread
  std::vector<RowResult> results_;
};

struct EngineOptions {
  int64_t window = 0;        // tokens that the model sees at once; 0: the model's max_sequence
  int64_t cache_tokens = 0;  // of all texts of a rank together, in whole blocks; 0: `texts` whole windows
  int64_t texts = 16;        // of a rank under way at most; more wait
  int64_t step_rows =
      512;  // of a forward: enough for products near their peak; bounds what a token waits for
  std::vector<TokenRange> allowed = {};  // the only tokens that are drawn; empty: all
  // strict: a text does not depend on what is written beside it, to the bit.
  Reproducible reproducible = Reproducible::strict;
};

// EngineOptions::cache_tokens with which so many texts have a whole window each.
int64_t cache_tokens_for(int64_t texts, int64_t window);

// On several ranks each has a cache of its own and reads the texts that rank 0's scheduler gives it, and to
// those that share its matrices (Gpt::alike_ranks); experts are where the model has them. All ranks go
// through the model together, those without texts too. Texts are the same on any number of ranks.
class Engine {
 public:
  // `model` must outlive the engine, which only reads it: several may share one. `world`: the ranks that work
  // together, with the same options; null: this one alone. It must outlive the engine.
  // Throws Error(argument) where the window is longer than the model's sequences or the cache is too small.
  Engine(const model::Gpt& model, const EngineOptions& options, Communicator* world = nullptr);

  // On rank 0: all below; and end() when nothing more is to be written, or the others wait for ever.
  // On the others: does what rank 0 says until it ends.
  void follow();
  void end();
  // To be called every second or so while there is nothing to do: shows the others, which wait for rank 0,
  // and rank 0, that all are there.
  void keep_in_touch();

  int64_t window() const { return scheduler_.options().window; }
  int64_t vocabulary() const { return worker_.vocabulary(); }

  // Throws Error(argument) for options out of range, or tokens outside the vocabulary: check() alone, too.
  void submit(TextRequest request);
  void check(const TextRequest& request) const;
  void cancel(int64_t id) { scheduler_.cancel(id); }
  bool idle() const { return scheduler_.idle(); }

  // One forward over what is to be read next, and what came of it. Where it throws, nothing of it has
  // happened, and, on one rank, it may be tried again.
  void step(const TextEvents& events);

  SchedulerCounts counts() const { return scheduler_.counts(); }
  Executor& executor() { return worker_.executor(); }

 private:
  bool alone() const { return world_ == nullptr || world_->size() == 1; }
  void tell(std::span<const RankPlan> plans);
  void send();  // message_, behind a place for its size
  void hear();  // it, as all do
  void exchange(int64_t longest_answer);

  Communicator* world_;
  int team_;             // consecutive ranks that work on the same rows, of which the first answers
  Scheduler scheduler_;  // on rank 0
  Worker worker_;
  std::vector<std::vector<RowResult>> results_;  // of each rank
  Stream stream_;
  std::vector<int32_t> message_, answers_;  // to all ranks, and of all ranks
};

}  // namespace ziggurat::infer
