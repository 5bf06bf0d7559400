// The training loop.
#pragma once

#include <functional>
#include <vector>

#include <ziggurat/train/checkpoints.h>
#include <ziggurat/train/evaluation.h>
#include <ziggurat/train/executor.h>
#include <ziggurat/train/guard.h>
#include <ziggurat/train/reporter.h>
#include <ziggurat/train/run_data.h>
#include <ziggurat/train/run_folder.h>
#include <ziggurat/train/train_step.h>
#include <ziggurat/train/training.h>
#include <ziggurat/watch/deadline.h>
#include <ziggurat/watch/slow_ranks.h>
#include <ziggurat/watch/stop_requests.h>

namespace ziggurat::train {

class Trainer {
 public:
  // Collective over `world`, which must outlive the trainer. Locks the output folder as long as it lives.
  // Errors are those of the config, the folder, the data and (on resume) the checkpoint; nothing in the
  // folder has changed then.
  Trainer(const RunConfig& config, Communicator& world);

  // Trains to the goal: steps, validations, checkpoints, progress lines; `none` is returned then. Or until
  // some rank is asked to stop, which is returned: the step is finished and saved. Collective.
  watch::StopRequest run();

  // What run() calls every eval.tasks_every steps and at the end, on every rank.
  using Evaluator = std::function<std::vector<NamedScore>(const model::Gpt&)>;
  void set_evaluator(Evaluator evaluator) { evaluator_ = std::move(evaluator); }
  // The same with eval.samples_every.
  using Sampler = std::function<std::vector<Sample>(const model::Gpt&)>;
  void set_sampler(Sampler sampler) { sampler_ = std::move(sampler); }
  // What run() calls once, after the first step, on every rank: FLOP/s of this rank's products (unset: not
  // told).
  void set_roof_meter(std::function<double(DType)> meter) { roof_meter_ = std::move(meter); }

  StepRecord step();  // the next one: after a rewind, that is another than was asked for
  Validation validate() { return evaluation_.of(data_.valid.get(), Split::valid); }
  void save();  // and waits until it is on the disk; throws Error(checkpoint) where it cannot be

  int64_t steps_done() const { return training_.cursor.step; }
  int64_t consumed_samples() const { return training_.cursor.samples; }
  model::Gpt& model() { return training_.model; }
  void finish_queued_work() { executor_.stream.wait(); }
  nn::ParamStore& params() { return training_.store.await_values(), training_.store; }
  int64_t lent_gradient_bytes() const { return step_.lent_gradient_bytes(); }  // ZeRO-2
  OptimizerState& optimizer_state() { return training_.optimizer.state(); }
  const SampleSource& train_data() const { return *data_.train; }
  // Steps from now on keep their times in `profile`, which must outlive them; null: no times.
  void set_profile(Profile* profile) { executor_.stream.set_profile(profile); }
  // What the arenas held at most so far: what plan_memory() foretells.
  Executor::Memory high_water() const { return executor_.high_water(); }

 private:
  void start();
  void prepare_objective();
  bool rewind(const StepPlan& plan, const std::string& why);
  void tell_goal(const char* when) const;
  void measure_roof();
  bool due(int64_t every) const;  // after the step that was done last
  void evaluate();
  watch::StopRequest train_to_goal();
  void tell(const Checkpoints::Ended& saves);
  void finish_saves();                    // throws Error(checkpoint) where the last one failed
  watch::StopRequest stop_asked() const;  // of this rank
  void tell_each_other(StepRecord& done, const watch::StepTime& time);

  RunConfig config_;
  RunFolder folder_;
  Training training_;
  RunData data_;
  Executor executor_;
  TrainStep step_;
  Guard guard_;
  StepFeed feed_;
  Evaluation evaluation_;
  Checkpoints checkpoints_;
  Reporter reporter_;

  int64_t total_steps_ = 0;
  watch::Deadline deadline_;
  watch::SlowRanks slow_ranks_;
  watch::PhaseTimes step_times_;
  watch::StopRequest stop_ = watch::StopRequest::none;  // that the ranks agreed on
  std::string save_failure_;  // of the save that ended last; empty: it was committed
  bool finished_ = false;     // an earlier start did all that this one was asked for
  Evaluator evaluator_;
  Sampler sampler_;
  std::function<double(DType)> roof_meter_;
};

}  // namespace ziggurat::train
