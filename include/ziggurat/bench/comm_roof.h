// What the collectives of this job take, beside MPI's own and beside a plain copy of the bytes that must
// move.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ziggurat/comm/communicator.h>

namespace ziggurat::bench {

// Seconds of the slowest rank, the best of several; ours, flat and by nodes, MPI's and the copy take turns.
struct CollectiveTime {
  std::string name;
  int64_t bytes = 0;  // of the message: the larger of input and output
  double ours = 0;
  double by_nodes = 0;  // 0: there are no nodes
  double mpi = 0;
  double copy = 0;  // every rank copies, at once, the bytes that it must get from its peers
  int64_t messages = 0, messages_by_nodes = 0;  // of rank 0; all-to-alls only
};

// Over the same ranks: `by_nodes` goes by nodes, null if there are none; `mpi` leaves all to the library.
// Collective; two ranks at least.
std::vector<CollectiveTime> measure_collectives(Communicator& ours, Communicator* by_nodes, Communicator& mpi,
                                                const std::vector<int64_t>& message_bytes);

}  // namespace ziggurat::bench
