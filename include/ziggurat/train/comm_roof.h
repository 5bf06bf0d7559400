// What the collectives of this job take, beside MPI's own and beside a plain copy of the bytes that must
// move.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ziggurat/comm/communicator.h>

namespace ziggurat::train {

// Seconds of the slowest rank, the best of several; ours, MPI's and the copy take turns.
struct CollectiveTime {
  std::string name;
  int64_t bytes = 0;  // of the message: the larger of input and output
  double ours = 0;
  double mpi = 0;
  double copy = 0;  // every rank copies, at once, the bytes that it must get from its peers
};

// `mpi` is a communicator over the same ranks that leaves all to the library. Collective; two ranks at least.
std::vector<CollectiveTime> measure_collectives(Communicator& ours, Communicator& mpi,
                                                const std::vector<int64_t>& message_bytes);

}  // namespace ziggurat::train
