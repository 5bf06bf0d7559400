// Is there anything in the weights that is no number?
#pragma once

#include <string>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/nn/param_store.h>

namespace ziggurat::train {

// Collective. The first parameter, in the order of registration over all ranks, of which a master or a moment
// is infinite or not a number, as "NAME, master, element I on rank R"; empty: all are finite. Reads every
// value once.
std::string first_not_finite(nn::ParamStore& store, Communicator& world);

}  // namespace ziggurat::train
