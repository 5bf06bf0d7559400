// What a rank's memory will hold, found by building the model and running one micro-batch on Device::meta:
// the same code that allocates in training, so the prediction is the allocation.
#pragma once

#include <cstdint>

#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

// What a process takes besides: code and libraries, MPI and oneDNN with the code that it makes, stacks, and
// the roof's operands. Seen: 45 to 62 MiB resident beyond the rest at the peak, from 0.03M to 124M
// parameters, f32 and bf16, on one rank and two.
inline constexpr int64_t kProcessBytes = int64_t{48} << 20;

struct MemoryPlan {  // bytes of one rank
  int64_t masters = 0, compute_copies = 0, packed_weights = 0, gradients = 0, moments = 0;
  int64_t activations = 0, activation_gradients = 0, workspace = 0;
  int64_t process = kProcessBytes;
  // The peak of what is resident, within 10 %.
  int64_t total() const {
    return masters + compute_copies + packed_weights + gradients + moments + activations +
           activation_gradients + workspace + process;
  }
  int64_t local_parameters = 0;   // held by this rank
  int64_t global_parameters = 0;  // of the model
};

// For the threads that this process has. Routing is assumed balanced, and with capacity at its limit; far
// from balance, activation gradients take up to twice as much. Throws Error(config) for a run that needs more
// than a process can address.
MemoryPlan plan_memory(const RunConfig& config, int world_size, int rank = 0);

}  // namespace ziggurat::train
