#include <algorithm>
#include <numeric>

#include <ziggurat/optim/schedule.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kDefaultLanes =
    8;  // enough for strict runs on up to 8 ranks; each lane costs a gradient slab
}  // namespace

model::ModelConfig model_of(const RunConfig& config, int world_size) {
  return model::fit_to_ranks(config.model, std::max(1, world_size / config.parallel.expert_tensor));
}

ParallelPlan layout_of(const RunConfig& config, int world_size) {
  return {world_size,
          model_of(config, world_size).expert_parallel_sizes(),
          {.tp = config.parallel.tensor, .expert_tp = config.parallel.expert_tensor}};
}

int ranks_asked_for(const RunConfig& config) {
  const std::vector<int> sizes = config.model.expert_parallel_sizes();
  const int ep = sizes.empty() ? 1 : *std::max_element(sizes.begin(), sizes.end());
  return std::lcm(ep * config.parallel.expert_tensor, config.parallel.tensor);
}

int64_t tokens_of_rank(const RunConfig& config, int dp) {
  const StepPlan plan = plan_step(config, dp, config.train.tokens / config.batch.sequence_length);
  return plan.micro_batches_per_rank * config.batch.micro_batch * config.batch.sequence_length;
}

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

void check_batch(const RunConfig& config, int dp, int64_t samples) {
  const int64_t unit = config.batch.micro_batch * dp;
  const char* key = samples == config.batch.global_batch   ? "batch.global_batch"
                    : samples == config.batch.rampup.start ? "batch.rampup.start"
                                                           : "batch.rampup.increment";
  check(samples % unit == 0, ErrorKind::config,
        "{}: {} sequences cannot be shared by {} ranks in micro-batches of {}: expected a multiple of {}",
        key, samples, dp, config.batch.micro_batch, unit);
  if (config.reproducible != Reproducible::strict) return;
  const int64_t lanes = strict_lanes(config), micro_batches = samples / config.batch.micro_batch;
  lanes_of(0, dp, lanes);  // throws unless the ranks can share the lanes
  check(micro_batches % lanes == 0, ErrorKind::config,
        "batch.lanes: {} micro-batches of a step cannot be cut into {} lanes: expected a divisor",
        micro_batches, lanes);
}

StepPlan plan_step(const RunConfig& config, int dp, int64_t consumed_samples) {
  const BatchConfig& batch = config.batch;
  StepPlan plan;
  plan.first_sample = consumed_samples;
  plan.samples = BatchRampup(batch.rampup, batch.global_batch).batch(consumed_samples);
  check_batch(config, dp, plan.samples);
  plan.micro_batches = plan.samples / batch.micro_batch;
  plan.micro_batches_per_rank = plan.micro_batches / dp;
  plan.tokens = plan.samples * batch.sequence_length;
  plan.lr = learning_rate(config.optimizer, consumed_samples * batch.sequence_length);
  if (config.reproducible == Reproducible::strict) plan.lanes_per_rank = strict_lanes(config) / dp;
  return plan;
}

namespace {
BatchRampup::Extent rest_of_run(const RunConfig& config, int64_t consumed_samples) {
  return BatchRampup(config.batch.rampup, config.batch.global_batch)
      .extent(ceil_div(config.train.tokens, config.batch.sequence_length), consumed_samples);
}
}  // namespace

int64_t steps_left(const RunConfig& config, int64_t consumed_samples) {
  return rest_of_run(config, consumed_samples).steps;
}

int64_t samples_of_run(const RunConfig& config, int64_t consumed_samples) {
  return rest_of_run(config, consumed_samples).samples;
}

int64_t total_steps(const RunConfig& config) { return steps_left(config, 0); }

}  // namespace ziggurat::train
