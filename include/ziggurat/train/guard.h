// Watches the numbers of a run: what is not finite, far off, or not the same on all ranks must not get into
// the weights, or at least into no checkpoint.
#pragma once

#include <string>

#include <ziggurat/train/train_step.h>

namespace ziggurat::train {

class Guard {
 public:
  // All must outlive it.
  Guard(const RunConfig& config, Training& training, TrainStep& step, Executor& executor)
      : config_(config.guard), training_(training), step_(step), executor_(executor) {}

  struct Guarded {
    StepResult result;
    std::string left_out;  // why there was no update; empty: there was one
    bool rewind = false;   // the cursor stands before the step, and the run is to go back
  };

  // A step as TrainStep::run() does it, unless guard.* says otherwise. The same on every rank. Throws
  // Error(numeric), and leaves weights, moments and cursor, where the run must stop. Collective.
  Guarded run(const StepPlan& plan, double counted_tokens, const TrainStep::ReadBatch& read);

  // Where there is nothing to rewind to: the update stays left out.
  void leave_out(const StepPlan& plan, const std::string& why);
  // Once a rewind is done. Throws Error(numeric) if there were too many to this step.
  void count_rewind(int64_t step);

  // Every guard.replica_check_every steps. Throws Error(numeric) naming tensor and rank. Collective.
  void check_replicas();

 private:
  void accumulate(const StepPlan& plan, double counted_tokens, const TrainStep::ReadBatch& read);
  std::string describe_spike(const StepPlan& plan, double counted_tokens, const TrainStep::ReadBatch& read,
                             const StepResult& result, const StepLimits& limits);

  const GuardConfig& config_;
  Training& training_;
  TrainStep& step_;
  Executor& executor_;
  int64_t in_a_row_ = 0;                         // updates left out
  int64_t rewound_to_ = -1, rewinds_there_ = 0;  // a step
};

}  // namespace ziggurat::train
