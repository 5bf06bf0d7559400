// What a rank's memory will hold, found by building the model and running one micro-batch on Device::meta:
// the same code that allocates in training, so the prediction is the allocation.
#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

// What a process takes besides: code and libraries, MPI and oneDNN with the code that it makes, stacks, and
// the roof's operands. Seen: 45 to 62 MiB resident beyond the rest at the peak, from 0.03M to 124M
// parameters, f32 and bf16, on one rank and two.
inline constexpr int64_t kProcessBytes = int64_t{48} << 20;

// Of a kernel in a recorded micro-batch, on the GPU: its arguments and how it is launched, rounded up to what
// CUDA hands out at a time. Assumed: no GPU has shown it yet. `ziggurat bench roof --device cuda` measures
// it.
inline constexpr int64_t kGraphNodeBytes = 8192;

// Of a run on a GPU all but `staged` and `process`, which are the host's, lies in the GPU's memory. CUDA's
// own, some hundred MiB on either side, is not counted.
struct MemoryPlan {  // bytes of one rank
  int64_t values = 0, masters = 0, packed_weights = 0, gradients = 0, moments = 0;
  int64_t teacher = 0;  // its weights, while it is there (distil)
  int64_t activations = 0, activation_gradients = 0, workspace = 0;
  int64_t graphs = 0;  // what CUDA keeps of recorded micro-batches
  int64_t spare = 0;   // of a GPU's arenas, which don't grow: as much again, where ranks share experts
  int64_t staged = 0;  // of the host: the copy of what the rank saves and its records, with checkpoint.async
  int64_t process = kProcessBytes;
  // The peak of what is resident on the config's device, within 10 %; on the CPU with `process`.
  int64_t without_process() const {
    return values + masters + packed_weights + gradients + moments + teacher + activations +
           activation_gradients + workspace + graphs + spare;
  }
  int64_t total() const { return without_process() + staged + process; }
  int64_t local_parameters = 0;   // held by this rank
  int64_t global_parameters = 0;  // of the model
};

// For the threads that this process has. Routing is assumed balanced, and with capacity at its limit; far
// from balance, activation gradients take up to twice as much. No device is asked: a GPU's run is planned
// anywhere, with the most scratch that its libraries may take. Throws Error(config) for a run that needs more
// than a process can address.
MemoryPlan plan_memory(const RunConfig& config, int world_size, int rank = 0);

struct RankClass {
  std::vector<int> ranks;  // ascending
  MemoryPlan memory;       // of each
};

// All ranks of a job. The model of every one is built (on a meta device, in milliseconds), and the experts
// that they hold are counted: Error(internal) unless each is on as many ranks as the layout says. What a rank
// allocates and exchanges follows from the shapes of the tensors it holds, since balanced routing sends every
// rank as much: those with the same shapes are a class, and one of them runs the micro-batch for all.
std::vector<RankClass> plan_every_rank(const RunConfig& config, int world_size);

}  // namespace ziggurat::train
