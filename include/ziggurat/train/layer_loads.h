// How the experts of each layer were used in a step.
#pragma once

#include <vector>

#include <ziggurat/train/executor.h>
#include <ziggurat/train/metrics.h>
#include <ziggurat/train/training.h>

namespace ziggurat::train {

// Since the statistics were reset, over all ranks; empty for a model without experts. Waits once. Collective.
std::vector<LayerLoad> layer_loads(const Training& training, Executor& executor);
// Of Executor::numbers that it takes.
int64_t bytes_of_layer_loads(const model::Gpt& model);

}  // namespace ziggurat::train
