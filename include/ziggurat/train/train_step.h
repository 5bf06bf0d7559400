// One optimizer step: micro-batches forward and backward, the sum over ranks, the update.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <ziggurat/model/gpt.h>
#include <ziggurat/parallel/gradient_reducer.h>
#include <ziggurat/train/executor.h>
#include <ziggurat/train/micro_batch_graphs.h>
#include <ziggurat/train/step_history.h>
#include <ziggurat/train/step_plan.h>
#include <ziggurat/train/training.h>

namespace ziggurat::train {

// The same on every rank.
struct StepResult {
  double loss = 0;                  // cross-entropy per counted token, nats
  double grad_norm = 0;             // before clipping
  std::vector<double> group_norms;  // of optimizer.clip_groups, the rest first; none: there are none
  std::vector<double> parts;   // of the step's loss, in the order of Objective::parts(); the first is `loss`
  std::vector<double> losses;  // parts of each micro-batch, before any mean, by its number
  bool updated = false;        // or something is not finite or beyond the limits: all is as it was

  bool finite() const;
  double auxiliary_loss() const;  // all parts but the first
};

class TrainStep {
 public:
  // All three must outlive it.
  TrainStep(const RunConfig& config, Training& training, Executor& executor);
  ~TrainStep();
  TrainStep(const TrainStep&) = delete;
  TrainStep& operator=(const TrainStep&) = delete;
  // Bytes of Executor::numbers that it takes: from its construction on, and in a step.
  static int64_t bytes_of_numbers(const RunConfig& config, const objective::Objective& objective);

  // The tokens of a micro-batch by its number among all of the step's; they stay until the next call.
  using ReadBatch = std::function<model::TokenBatch(int64_t micro_batch)>;

  // Does what `plan` says with this rank's micro-batches. `counted_tokens`: targets that count, over all
  // ranks. If the result says that there was an update, weights, moments and cursor are then those after the
  // step; Param::grad holds its gradient, before clipping. Collective.
  StepResult run(const StepPlan& plan, double counted_tokens, const ReadBatch& read);

  // The same in two parts; the cursor is theirs to advance. After the first, gradients may be summed already.
  void accumulate(const StepPlan& plan, double counted_tokens, const ReadBatch& read);
  // For who looks between them: what this rank alone has computed, but with ParamGroup::scattered.
  // Forward and backward: gradients of the micro-batches of the rank that is `shift` further, around. `after`
  // is called after each, with its number, and may look at what is accumulated so far; a device then gets
  // micro-batches kernel by kernel.
  using After = std::function<void(int64_t micro_batch)>;
  void accumulate_alone(const StepPlan& plan, double counted_tokens, const ReadBatch& read, int shift = 0,
                        const After& after = {});
  // The sum over ranks and the update.
  StepResult finish(const StepPlan& plan, double counted_tokens, const StepLimits& limits = {});

  int64_t lent_gradient_bytes() const { return reducer_.lent_bytes(); }

  // What accumulate() has computed: f64 [micro-batches of a rank, parts of the loss].
  Tensor losses_of(const StepPlan& plan, int shift) const;

 private:
  bool exchanges_behind() const;  // what computes
  void accumulate(const StepPlan& plan, double counted_tokens, const ReadBatch& read, int shift,
                  const After& after, bool behind);
  int64_t first_micro_batch(const StepPlan& plan, int shift) const;
  void forward_backward(const StepPlan& plan, double counted_tokens, int64_t micro_batch, bool first,
                        bool reduces, bool by_kernels, const ReadBatch& read);
  StepResult told(const StepPlan& plan, double counted_tokens, const Tensor& clipped);

  const RunConfig& config_;
  Training& training_;
  Executor& executor_;
  parallel::GradientReducer reducer_;
  MicroBatchGraphs graphs_;
  // Parts of the loss, f64: of the latest micro-batch [parts], and by global micro-batch number
  // [micro-batches at most, parts] those of the step under way, zero for other ranks' ones until all are
  // summed.
  Tensor latest_losses_, micro_losses_;
};

}  // namespace ziggurat::train
