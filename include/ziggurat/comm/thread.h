// Ranks as threads of this process: parallel code under test without MPI.
#pragma once

#include <cstdint>
#include <functional>

#include <ziggurat/comm/communicator.h>

namespace ziggurat {

// Runs body(world) on `ranks` threads, each with one OpenMP thread, and returns when all have ended.
// If a rank throws, its peers' pending and later collectives throw Error(communication) naming that rank, and
// the first exception is rethrown here. The same happens when ranks disagree on the collective they are in,
// or when one returns while its peers still wait for it.
void run_on_threads(int ranks, const std::function<void(Communicator&)>& body,
                    int64_t reduce_chunk_bytes = kReduceChunkBytes);

}  // namespace ziggurat
