#include <ziggurat/train/executor.h>

namespace ziggurat::train {

Executor::Executor(const RunConfig& config, Device device, const Memory& most, int64_t bytes_of_numbers)
    : activations("activations", most.activations, device),
      gradients("activation gradients", most.activation_gradients, device),
      workspace("workspace", most.workspace, device),
      numbers("losses", bytes_of_numbers, device),
      stream(device, config.reproducible),
      tape(activations, gradients, workspace, stream),
      upload(device, config.batch.micro_batch * config.batch.sequence_length) {}

}  // namespace ziggurat::train
