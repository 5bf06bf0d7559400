// What one optimizer step consists of: a function of the config, the number of ranks and the samples consumed
// so far.
#pragma once

#include <cstdint>

#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

struct StepPlan {
  int64_t first_sample = 0;   // consumed before this step
  int64_t samples = 0;        // sequences of the step
  int64_t micro_batches = 0;  // of the step, over all ranks
  int64_t micro_batches_per_rank = 0;
  int64_t lanes_per_rank = 1;  // strict mode
  int64_t tokens = 0;          // of the step
  double lr = 0;
};

// Throws Error(config) if the step's batch cannot be shared among `world_size` ranks.
StepPlan plan_step(const RunConfig& config, int world_size, int64_t consumed_samples);

// Tokens that a rank takes in one step, once the batch has its full size.
int64_t tokens_of_rank(const RunConfig& config, int world_size);

// Throws Error(config) unless `world_size` ranks can share a step of so many sequences.
void check_batch(const RunConfig& config, int world_size, int64_t samples);

// Lanes of a strict run on any number of ranks: from the config, or the largest power of two up to 8 that
// divides the micro-batches of every step.
int64_t strict_lanes(const RunConfig& config);

// Of a run until train.tokens are consumed, `consumed_samples` being already, with whatever batches.
int64_t steps_left(const RunConfig& config, int64_t consumed_samples);
int64_t samples_of_run(const RunConfig& config,
                       int64_t consumed_samples = 0);  // of all steps, those done too

int64_t total_steps(const RunConfig& config);  // of a whole run

}  // namespace ziggurat::train
