// The work of a rank's training step, noted by running it on a meta device: `ziggurat plan --simulate` makes
// a time of it (plan/step_time.h).
#pragma once

#include <ziggurat/plan/step_time.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

// Of a step of the full batch. Routing is assumed balanced. Errors are those of plan_memory().
StepWork record_step(const RunConfig& config, int world_size, int rank = 0);

// What the step takes on `ranks` of the cluster's, with the cluster's software. Throws Error(config) if it
// has fewer, if software.tensor_parallel, which only dense models have, does not divide them, or if products
// are not in bf16, of which a cluster's roof is.
StepTime simulate_step(const RunConfig& config, int ranks, const ClusterConfig& cluster);

}  // namespace ziggurat::train
