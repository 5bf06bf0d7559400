// Work that mpirun may have started on several ranks.
#pragma once

#include <functional>

#include <ziggurat/comm/mpi.h>

namespace ziggurat::apps {

// Starts MPI, takes `threads` (0: the node's cores divided among its ranks), and runs body(). An error
// on one rank ends the job on all with its exit code. `device`: where body computes.
void on_ranks(int threads, const std::function<void(MpiRuntime&)>& body, Device device = Device::cpu);

// For what works in one process. Throws Error(argument) in all but the first of several that mpirun started,
// which ends them all.
void check_one_process(const char* command);

}  // namespace ziggurat::apps
