// Work that mpirun may have started on several ranks.
#pragma once

#include <functional>

#include <ziggurat/comm/mpi.h>
#include <ziggurat/watch/watch_config.h>

namespace ziggurat::apps {

struct RankOptions {
  int threads = 0;              // of a rank; 0: the node's cores divided among its ranks
  Device device = Device::cpu;  // where body computes
  int ranks_per_node = 0;       // consecutive ones, for the watchdog; 0: those of a machine
  // Of several ranks: a lost, stopped or hanging one ends the job by name (76).
  watch::WatchConfig watch = {.enabled = false};
};

// Starts MPI and runs body(). An error on one rank ends the job on all with its exit code.
void on_ranks(const RankOptions& options, const std::function<void(MpiRuntime&)>& body);

// For what works in one process. Throws Error(argument) in all but the first of several that mpirun started,
// which ends them all.
void check_one_process(const char* command);

}  // namespace ziggurat::apps
