// The emulated device, as tests see it beside the CUDA runtime's functions (include/cuda_runtime.h).
//
// Work is queued and not run until the host waits (a synchronize, a copy that blocks). While it waits, the
// next piece of work is drawn among all streams whose first piece may run: only a stream's own order and
// events decide what comes before what, so a missing event shows as a wrong result under some seed. Queries
// of a stream or event move work on now and then, so that loops around them end. Nothing else runs work:
// neither destroying a stream or an event nor freeing memory.
//
// A captured stream records what it is given, and a launch of the graph queues all of it again with the same
// arguments. It is stricter than a GPU: meanwhile the capturing thread may make no call at all that waits,
// queries, takes memory or gives it back, or copies the host's ordinary memory.
//
// A kernel's error stays, as on a GPU: every later call returns it until reset(), cudaGetErrorString says
// what happened, and work that was queued is dropped.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include <cuda_runtime.h>

#include "tests/emulation/accesses.h"

namespace ziggurat::emulation {

// A new device: no memory, streams, events, counts or errors. `seed` fixes every order that is drawn.
void reset(uint64_t seed);
// ZIGGURAT_EMULATION_SEED, or 1.
uint64_t default_seed();

// What the kernels of that name did since reset; names as in "swiglu_forward<float>". No such: all zeros.
KernelCounts counts(const std::string& kernel);
const std::map<std::string, KernelCounts>& all_counts();

// A library's kernel, which is no code of ours: queued as a launch is, counted under `name`, with the
// device's memory open to it. It checks its addresses by check_device_memory, and throws KernelError.
cudaError_t enqueue_library_call(cudaStream_t stream, const std::string& name, std::function<void()> run);

// Work of several streams at once, as a collective is: its parts are queued one in each, no part runs before
// all streams have come to theirs, and the first that runs does all of it. Threads that wait meanwhile run
// what else there is.
struct Meeting;
std::shared_ptr<Meeting> make_meeting(int parts);
struct Met {
  std::shared_ptr<Meeting> meeting;
  std::function<void()> run;
};
// meet(): the meeting that comes next for this part. A captured stream calls it anew in every launch.
cudaError_t enqueue_meeting(cudaStream_t stream, int part, const std::string& name,
                            std::function<Met()> meet);
// Streams pass it from now on, and it is not held any more.
void cancel(Meeting& meeting);

// That a matrix of `rows` rows of `row_bytes`, `row_distance` bytes apart, lies in one live allocation.
void check_device_memory(const void* address, int64_t rows, int64_t row_bytes, int64_t row_distance,
                         const std::string& what);

// What a host program must leave behind: pieces of work that nobody waited for, and memory that nobody freed.
int64_t pending_work();
int64_t live_allocations();

}  // namespace ziggurat::emulation
