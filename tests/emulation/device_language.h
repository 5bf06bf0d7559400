// What the CUDA language's built-in functions are made of (include/cuda_runtime.h): called by kernels, done
// in block.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ziggurat::emulation {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
// Of the thread that calls; the same all its life.
[[gnu::const]] Index thread_index();
[[gnu::const]] Index block_index();
[[gnu::const]] Index block_size();
[[gnu::const]] Index grid_size();
[[gnu::const]] int thread_rank();  // in its block

// Where a kernel calls a built-in function.
struct Site {
  const char* file;
  int line;
};

// Waits until `threads` threads have come to barrier `id` (0 threads: all of the block, and all at one place
// of the program). Returns how many of them came with `predicate`.
int block_barrier(int id, int threads, bool predicate, const char* name, Site site);

// Waits until every lane of `mask` has come with the same mask, function and place; each then gets
// combine(values, mask, lane, argument), with its own argument. A barrier of memory too if `combine` is null.
using Combine = uint64_t (*)(const uint64_t* values, uint32_t mask, int lane, uint64_t argument);
uint64_t warp_exchange(uint32_t mask, Combine combine, uint64_t value, uint64_t argument, const char* name,
                       Site site);

// Copies to shared memory that the calling thread has begun are done when it waits for all groups that it
// committed but the last `groups`.
void async_copy(void* to, const void* from, size_t bytes, size_t zeros, Site site);
void async_commit();
void async_wait(size_t groups);

// Before an atomic operation, which is then done at once: kernels' threads take turns.
void atomic_access(const volatile void* address, size_t bytes);
// A trap or a failed assert of device code.
[[noreturn]] void device_failure(const char* what, Site site);

}  // namespace ziggurat::emulation
