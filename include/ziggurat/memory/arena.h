// A bump allocator over one reserved range of addresses. Memory is touched once and then reused every
// micro-batch, so nothing is allocated (and no page faults) in steady state. On Device::meta it only counts.
#pragma once

#include <cstdint>

#include <ziggurat/runtime/device.h>

namespace ziggurat {

class Arena {
 public:
  using Mark = int64_t;
  static constexpr int64_t kAlignment = 64;  // bytes; one AVX-512 register, one cache line

  // Reserves `capacity` bytes of addresses; pages are backed on first touch (huge pages where the system has
  // them).
  Arena(const char* name, int64_t capacity, Device device = Device::cpu);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Uninitialised memory. Throws Error(device) naming the arena, what was asked and what is left.
  void* allocate(int64_t bytes);

  Mark mark() const { return used_; }
  void rewind(Mark mark) { used_ = mark; }  // frees everything allocated since `mark`
  void reset() { used_ = 0; }

  Device device() const { return device_; }
  int64_t used() const { return used_; }              // bytes
  int64_t high_water() const { return high_water_; }  // bytes, since construction
  int64_t capacity() const { return capacity_; }

 private:
  const char* name_;
  Device device_;
  char* base_ = nullptr;
  int64_t capacity_, used_ = 0, high_water_ = 0;
};

// Frees on leaving the scope what was allocated from `arena` inside it.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.rewind(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace ziggurat
