#include <algorithm>
#include <numeric>

#include <ziggurat/optim/schedule.h>
#include <ziggurat/plan/parallel_plan.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kDefaultLanes =
    8;  // enough for strict runs on up to 8 ranks; each lane costs a gradient slab
}  // namespace

int64_t strict_lanes(const RunConfig& config) {
  if (config.batch.lanes > 0) return config.batch.lanes;
  // Every batch of the ramp-up must cut into the same lanes.
  int64_t micro_batches = config.batch.global_batch / config.batch.micro_batch;
  if (config.batch.rampup.enabled()) {
    micro_batches = std::gcd(micro_batches, config.batch.rampup.start / config.batch.micro_batch);
    micro_batches = std::gcd(micro_batches, config.batch.rampup.increment / config.batch.micro_batch);
  }
  int64_t lanes = 1;
  while (lanes < kDefaultLanes && micro_batches % (2 * lanes) == 0) lanes *= 2;
  return lanes;
}

StepPlan plan_step(const RunConfig& config, int world_size, int64_t consumed_samples) {
  const BatchConfig& batch = config.batch;
  StepPlan plan;
  plan.first_sample = consumed_samples;
  plan.samples = BatchRampup(batch.rampup, batch.global_batch).batch(consumed_samples);
  plan.micro_batches = plan.samples / batch.micro_batch;
  plan.micro_batches_per_rank = plan.micro_batches / world_size;
  plan.tokens = plan.samples * batch.sequence_length;
  check(plan.samples % (batch.micro_batch * world_size) == 0, ErrorKind::config,
        "batch.global_batch: {} sequences cannot be shared by {} ranks in micro-batches of {}: expected a "
        "multiple of {}",
        plan.samples, world_size, batch.micro_batch, batch.micro_batch * world_size);
  plan.lr = learning_rate(config.optimizer, consumed_samples * batch.sequence_length);
  if (config.reproducible == Reproducible::strict) {
    const int64_t lanes = strict_lanes(config);
    lanes_of(0, world_size, lanes);  // throws unless the ranks can share the lanes
    plan.lanes_per_rank = lanes / world_size;
    check(plan.micro_batches % lanes == 0, ErrorKind::config,
          "batch.lanes: {} micro-batches of a step cannot be cut into {} lanes: expected a divisor",
          plan.micro_batches, lanes);
  }
  return plan;
}

int64_t samples_of_run(const RunConfig& config) {
  const BatchRampup batches(config.batch.rampup, config.batch.global_batch);
  const int64_t wanted = ceil_div(config.train.tokens, config.batch.sequence_length);
  int64_t samples = 0;
  while (samples < wanted && batches.batch(samples) < config.batch.global_batch) {
    samples += batches.batch(samples);
  }
  const int64_t left = std::max<int64_t>(0, wanted - samples);  // at the full batch
  return samples + ceil_div(left, config.batch.global_batch) * config.batch.global_batch;
}

int64_t total_steps(const RunConfig& config) {
  return BatchRampup(config.batch.rampup, config.batch.global_batch)
      .steps_for_tokens(config.train.tokens, config.batch.sequence_length);
}

}  // namespace ziggurat::train
