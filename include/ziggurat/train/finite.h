// Is there anything in the weights that is no number?
#pragma once

#include <string>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/optim/optimizer_state.h>
#include <ziggurat/tensor/host_pieces.h>

namespace ziggurat::train {

// Collective. The first parameter, in the order of registration over all ranks, of which a master or a moment
// is infinite or not a number, or a value where it has a master beside it, as "NAME, weight, element I on
// rank R"; empty: all are finite. Each rank reads what it owns once.
std::string first_not_finite(const OptimizerState& state, Communicator& world);

// The first such element of one tensor of floats, or -1. Work that writes it must be done.
int64_t first_not_finite(const Tensor& tensor, HostPieces& pieces);

}  // namespace ziggurat::train
