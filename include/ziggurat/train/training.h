// What is trained, as this rank holds it, and how far the run is.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ziggurat/model/gpt.h>
#include <ziggurat/objective/objective.h>
#include <ziggurat/optim/optimizer.h>
#include <ziggurat/plan/process_groups.h>
#include <ziggurat/train/run_config.h>
#include <ziggurat/train/step_history.h>

namespace ziggurat::train {

struct Cursor {
  int64_t step = 0;      // optimizer steps done
  int64_t samples = 0;   // consumed by them
  int64_t left_out = 0;  // of the steps: without an update (train/guard.h)
  // Of the order of samples: passed over after a rewind. Ascending; each begins where the run stood.
  std::vector<IndexRange> skipped;

  int64_t skipped_samples() const;
  int64_t position() const { return samples + skipped_samples(); }  // of the next sample in their order
  void advance(int64_t by) { ++step, samples += by; }
};

struct Training {
  // On the run's device, or on `device`: a plan's is one without memory. Weights have their initial values,
  // functions of the seed. Collective where the groups have communicators that are.
  Training(const RunConfig& config, ProcessGroups groups, Device device);
  // Of a job of all these ranks; `world` must outlive it.
  Training(const RunConfig& config, Communicator& world);

  ProcessGroups groups;
  nn::ParamStore store;
  model::Gpt model;
  std::unique_ptr<objective::Objective> objective;  // that the model is trained for
  Optimizer optimizer;
  Cursor cursor;
  StepHistory history;  // if guard.spike judges by it
};

}  // namespace ziggurat::train
