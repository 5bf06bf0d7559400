// A rank as a run would build it, on a device without memory: what its steps take is found by running them.
#pragma once

#include <ziggurat/parallel/gradient_reducer.h>
#include <ziggurat/train/executor.h>
#include <ziggurat/train/training.h>

namespace ziggurat::train {

struct DryRank {
  DryRank(const RunConfig& config, int world_size, int rank);
  void micro_batch(parallel::GradientReducer& reducer);  // forward and backward
  void update();                                         // of the optimizer
  void evaluation();                                     // forward without drops

  const RunConfig& config;
  Training training;
  Executor executor;

 private:
  model::TokenBatch batch() const;
};

}  // namespace ziggurat::train
