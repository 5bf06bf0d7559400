// The emulated device, as tests see it beside the CUDA runtime's functions (include/cuda_runtime.h).
//
// Work is queued and not run until the host waits (a synchronize, a copy that blocks). While it waits, the
// next piece of work is drawn among all streams whose first piece may run: only a stream's own order and
// events decide what comes before what, so a missing event shows as a wrong result under some seed. Queries
// of a stream or event move work on now and then, so that loops around them end. Nothing else runs work:
// neither destroying a stream or an event nor freeing memory.
//
// A kernel's error stays, as on a GPU: every later call returns it until reset(), cudaGetErrorString says
// what happened, and work that was queued is dropped.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "tests/emulation/accesses.h"

namespace ziggurat::emulation {

// A new device: no memory, streams, events, counts or errors. `seed` fixes every order that is drawn.
void reset(uint64_t seed);
// ZIGGURAT_EMULATION_SEED, or 1.
uint64_t default_seed();

// What the kernels of that name did since reset; names as in "swiglu_forward<float>". No such: all zeros.
KernelCounts counts(const std::string& kernel);
const std::map<std::string, KernelCounts>& all_counts();

// What a host program must leave behind: pieces of work that nobody waited for, and memory that nobody freed.
int64_t pending_work();
int64_t live_allocations();

}  // namespace ziggurat::emulation
