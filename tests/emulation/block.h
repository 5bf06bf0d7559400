// Runs a kernel: blocks one after another, the threads of a block as fibers on the calling thread, in an
// order that is drawn anew for every block. A thread runs until it waits for others. Threads that never wait
// run one after the other on one fiber, so that a kernel without barriers costs no switches.
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "tests/emulation/accesses.h"
#include "tests/emulation/device_language.h"

namespace ziggurat::emulation {

struct Launch {
  std::string name;
  Index grid, block;
  size_t dynamic_shared_bytes = 0;
  void (*call)(const void* kernel, const void* arguments) = nullptr;  // runs one thread
  const void* kernel = nullptr;
  const void* arguments = nullptr;
  size_t arguments_bytes = 0;
};

using Random = std::mt19937_64;

// Throws KernelError, with kernel, block, thread and what it did. Device memory must be open.
void run_kernel(const Launch& launch, Random& random, KernelCounts& counts, const std::vector<Range>& pinned);

// A load or store that a kernel is about to do, at `site` of the program; nothing for code of the host.
void see_access(uintptr_t address, size_t bytes, Access kind, const void* site);

// Faults of memory on this process: of a kernel's thread they become its error; of the host in device memory
// they end the process with a message, as it would in a copy that was forgotten.
void catch_memory_faults();

}  // namespace ziggurat::emulation
