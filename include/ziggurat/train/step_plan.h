// What one optimizer step consists of: a function of the config, the ranks that share its batch (those along
// dp) and the samples consumed so far.
#pragma once

#include <cstdint>

#include <ziggurat/plan/parallel_plan.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

// The config's model on so many ranks: each layer's experts shared by those that are left beside
// parallel.expert_tensor, as fit_to_ranks() says.
model::ModelConfig model_of(const RunConfig& config, int world_size);

// The layout of a job of so many ranks, with model_of()'s expert-parallel sizes. Throws
// Error(config) if the ranks cannot be laid out.
ParallelPlan layout_of(const RunConfig& config, int world_size);

// The fewest ranks on which every layer is shared as its config asks for.
int ranks_asked_for(const RunConfig& config);

struct StepPlan {
  int64_t first_sample = 0;   // consumed before this step
  int64_t samples = 0;        // sequences of the step
  int64_t micro_batches = 0;  // of the step, over all of dp
  int64_t micro_batches_per_rank = 0;
  int64_t lanes_per_rank = 1;  // strict mode
  int64_t tokens = 0;          // of the step
  double lr = 0;
};

// Throws Error(config) if the step's batch cannot be shared among `dp` ranks.
StepPlan plan_step(const RunConfig& config, int dp, int64_t consumed_samples);

// Tokens that a rank takes in one step, once the batch has its full size.
int64_t tokens_of_rank(const RunConfig& config, int dp);

// Throws Error(config) unless `dp` ranks can share a step of so many sequences.
void check_batch(const RunConfig& config, int dp, int64_t samples);

// Lanes of a strict run on any number of ranks: from the config, or the largest power of two up to 8 that
// divides the micro-batches of every step.
int64_t strict_lanes(const RunConfig& config);

// Of a run until train.tokens are consumed, `consumed_samples` being already, with whatever batches.
int64_t steps_left(const RunConfig& config, int64_t consumed_samples);
int64_t samples_of_run(const RunConfig& config,
                       int64_t consumed_samples = 0);  // of all steps, those done too

int64_t total_steps(const RunConfig& config);  // of a whole run

}  // namespace ziggurat::train
