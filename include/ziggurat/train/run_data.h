// The token streams of a run, and this rank's micro-batches of a step in time.
#pragma once

#include <memory>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/data/sample_source.h>
#include <ziggurat/train/batch_reader.h>
#include <ziggurat/train/step_plan.h>
#include <ziggurat/train/training.h>

namespace ziggurat::train {

// A split as the config describes it, for a run of so many samples; null if it names none.
std::unique_ptr<SampleSource> open_split(const RunConfig& config, Split split, int64_t samples);

struct RunData {
  // Collective: all ranks must see the same. Says which splits are shorter than an evaluation.
  RunData(const RunConfig& config, Communicator& world);
  std::unique_ptr<SampleSource> train, valid, test;  // the latter two may be null

  // Lays `train` out for a run that stands there and goes on to its end. One that was begun with another
  // batch, or passed samples over, may end past those of one that was not.
  void reach_end(const RunConfig& config, const Cursor& cursor);
};

class StepFeed {
 public:
  // `config` must outlive it; `dp` are the ranks that share a step's micro-batches.
  StepFeed(const RunConfig& config, Communicator& dp);

  // Targets of the step that count, over all ranks: known before the first backward, since auxiliary losses
  // are means over micro-batches, so that no factor at the end would suit both. Throws Error(data) for none.
  // Collective.
  double begin(const SampleSource& source, const StepPlan& plan, int64_t step, Stream& stream);
  // A micro-batch by its number among all of the step's; the next one is fetched meanwhile.
  model::TokenBatch read(const SampleSource& source, const StepPlan& plan, int64_t micro_batch);

  double seconds() const { return seconds_; }  // that the step waited for data

 private:
  int64_t first_of_rank(const StepPlan& plan) const { return dp_.rank() * plan.micro_batches_per_rank; }

  const RunConfig& config_;
  Communicator& dp_;
  BatchReader batches_;
  double seconds_ = 0;
};

}  // namespace ziggurat::train
