// The tensors of a checkpoint: masters and moments by their global names, as boxes that ranks hold.
#pragma once

#include <vector>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/optim/optimizer_state.h>

namespace ziggurat::train {

// All that this rank holds of them; to fill.
std::vector<TensorSlice> held_tensors(const OptimizerState& state);

// Those of parameters alone.
std::vector<TensorSlice> held_parameters(const OptimizerState& state);

// What this rank writes of them, so that ranks together write each element once. Those that hold the same
// elements write equal shares of the bytes.
std::vector<TensorSlice> tensors_to_write(const OptimizerState& state, const ProcessGroups& groups);

}  // namespace ziggurat::train
