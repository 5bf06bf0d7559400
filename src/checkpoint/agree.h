// One outcome for all ranks.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <ziggurat/comm/communicator.h>

namespace ziggurat {

// Collective. Runs `work` on every rank and returns the ranks' answers in rank order. When it threw on some
// rank, every rank throws Error(checkpoint) with the message of the lowest such rank.
std::vector<std::string> agree(Communicator& comm, const std::function<std::string()>& work);

}  // namespace ziggurat
