// Where a rank's micro-batches run: a stream, a tape on it, and memory that is taken once.
#pragma once

#include <cstdint>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/train/batch_upload.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

struct Executor {
  // What the arenas hold, at most so far or at most at all.
  struct Memory {  // bytes
    int64_t activations = 0, activation_gradients = 0, workspace = 0;
    bool operator==(const Memory&) const = default;
  };

  // `numbers`: bytes of sums of steps and evaluations that the host reads (see below).
  Executor(const RunConfig& config, Device device, const Memory& most, int64_t numbers);
  Memory high_water() const {
    return {activations.high_water(), gradients.high_water(), workspace.high_water()};
  }

  Arena activations, gradients, workspace;
  Arena numbers;  // f64, on the device: losses, statistics; read by the host once a step
  Stream stream;
  Tape tape;
  BatchUpload upload;
};

}  // namespace ziggurat::train
