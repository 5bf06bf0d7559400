#include <ziggurat/core/injection.h>
#include <ziggurat/core/log.h>
#include <ziggurat/train/guard.h>
#include <ziggurat/train/not_finite.h>
#include <ziggurat/train/recomputation.h>
#include <ziggurat/train/replica_check.h>
#include <ziggurat/train/spoil.h>

namespace ziggurat::train {

namespace {

bool due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

}  // namespace

Guard::Guarded Guard::run(const StepPlan& plan, double counted_tokens, const TrainStep::ReadBatch& read) {
  const int64_t step = training_.cursor.step + 1;
  reach(Site::step, training_.groups.world().rank(), step);
  spoil_weights(training_, step, executor_.stream);
  accumulate(plan, counted_tokens, read);
  const bool judges = config_.spike != OnSpike::off;
  const StepLimits limits =
      judges ? training_.history.limits(config_.spike_sigma, config_.spike_window) : StepLimits();
  Guarded done{step_.finish(plan, counted_tokens, limits), "", false};
  const StepResult& result = done.result;
  if (result.updated) {
    in_a_row_ = 0;
    if (judges) training_.history.add(result.loss, result.grad_norm, config_.spike_window);
    training_.cursor.advance(plan.samples);
    return done;
  }
  if (result.finite()) {
    done.left_out = describe_spike(plan, counted_tokens, read, result, limits);
    done.rewind = config_.spike == OnSpike::rewind;
  } else {
    done.left_out = explain_not_finite(training_, step_, plan, counted_tokens, read, result, executor_);
    check(config_.non_finite == OnNonFinite::skip, ErrorKind::numeric,
          "step {}: {}. Lower optimizer.lr, lengthen optimizer.warmup_tokens, look at the loss's own factors "
          "(model.moe.balance_coefficient, model.moe.z_coefficient), start again from a checkpoint with "
          "another seed, or leave such updates out with guard.non_finite=skip",
          step, done.left_out);
  }
  if (!done.rewind) leave_out(plan, done.left_out);
  return done;
}

void Guard::leave_out(const StepPlan& plan, const std::string& why) {
  const int64_t step = training_.cursor.step + 1;
  ++in_a_row_;
  check(in_a_row_ <= config_.skip_limit, ErrorKind::numeric,
        "step {}: {}; it is the {}th update in a row that is left out, and guard.skip_limit allows {}. Start "
        "again from a checkpoint with a lower optimizer.lr or another seed",
        step, why, in_a_row_, config_.skip_limit);
  warn("step {}: the update is left out on all ranks: {}", step, why);
  training_.cursor.advance(plan.samples);
  ++training_.cursor.left_out;
}

void Guard::count_rewind(int64_t step) {
  rewinds_there_ = step == rewound_to_ ? rewinds_there_ + 1 : 1;
  rewound_to_ = step;
  check(
      rewinds_there_ <= config_.skip_limit, ErrorKind::numeric,
      "the run came back to step {} {} times, and guard.skip_limit allows {}: the samples are not the cause. "
      "Start again from an earlier checkpoint with a lower optimizer.lr",
      step, rewinds_there_, config_.skip_limit);
}

void Guard::accumulate(const StepPlan& plan, double counted_tokens, const TrainStep::ReadBatch& read) {
  const int64_t step = training_.cursor.step + 1;
  if (!due(config_.rerun_every, step)) return step_.accumulate(plan, counted_tokens, read);
  const Recomputed found = accumulate_twice(training_, step_, plan, counted_tokens, read, executor_.stream);
  if (found.difference.empty()) return;
  check(
      !found.lasting, ErrorKind::numeric,
      "step {}: computed twice, bits differ, and did so again: a lasting fault of the machine of {}. Take it "
      "out and start again: the run goes on from its newest checkpoint",
      step, found.difference);
  warn(
      "step {}: computed twice, bits differed, and then no more: a passing fault of the machine of {}. The "
      "step uses what was computed alike twice",
      step, found.difference);
}

// Computed once more, to tell a machine's fault from the model's or the data's.
std::string Guard::describe_spike(const StepPlan& plan, double counted_tokens,
                                  const TrainStep::ReadBatch& read, const StepResult& result,
                                  const StepLimits& limits) {
  step_.accumulate(plan, counted_tokens, read);
  const StepResult again = step_.finish(plan, counted_tokens, StepLimits::no_update());
  const bool same = again.losses == result.losses && again.grad_norm == result.grad_norm;
  const bool loss = result.loss > limits.loss;
  return fmt::format(
      "the {} is {:.6g}, more than {} deviations above the mean of {} updates before, which makes "
      "{:.6g} the most; computed again it is {}",
      loss ? "loss" : "gradient norm", loss ? result.loss : result.grad_norm, config_.spike_sigma,
      training_.history.losses.size(), loss ? limits.loss : limits.grad_norm,
      same
          ? "the same to the bit"
          : fmt::format("{:.6g}: a fault of a machine that has passed", loss ? again.loss : again.grad_norm));
}

void Guard::check_replicas() {
  const int64_t step = training_.cursor.step;
  if (!due(config_.replica_check_every, step)) return;
  executor_.stream.wait();
  const std::string found = first_disagreement(training_.optimizer.state(), training_.groups);
  check(
      found.empty(), ErrorKind::numeric,
      "step {}: ranks that must hold the same weights do not: {}. A machine of theirs is faulty; start again "
      "without it: the run goes on from the newest checkpoint, which was checked",
      step, found);
}

}  // namespace ziggurat::train
