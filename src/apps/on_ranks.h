// Work that mpirun may have started on several ranks.
#pragma once

#include <functional>

#include <ziggurat/comm/mpi.h>

namespace ziggurat::apps {

// Starts MPI, takes `threads` (0: the node's cores divided among its ranks), and runs body(world). An error
// on one rank ends the job on all with its exit code.
void on_ranks(int threads, const std::function<void(Communicator&)>& body);

}  // namespace ziggurat::apps
