// A bump allocator over one range of addresses, of which it holds as much as was ever in use. Memory is
// touched once and then reused every micro-batch, so nothing is allocated (and no page faults) in steady
// state. On a meta device it only counts. On Device::cuda all of the device's memory is taken at once, and
// what the host uses lies in an arena of its own, which does not count.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ziggurat/runtime/device.h>

namespace ziggurat {

// For tests and debugging. `checked`: fresh memory is filled with NaNs, and behind every allocation lie guard
// bytes, verified when the allocation is freed: a kernel that reads what nobody wrote or writes out of bounds
// shows. Costs time and kGuard bytes per allocation. On Device::cpu only.
enum class Canaries { off, checked };

class Arena {
 public:
  // How much was in use: on the arena's device, and apart from that by the host.
  struct Mark {
    int64_t used = 0, host = 0;
  };
  static constexpr int64_t kAlignment = 64;  // bytes; one AVX-512 register, one cache line
  static constexpr int64_t kGuard = 64;      // bytes behind an allocation, besides the rest of its last line

  static constexpr int64_t kUnlimited = int64_t{1} << 60;  // bytes; for meta devices

  // All the memory that this process may use, the natural limit of what grows with its input. Bytes.
  static int64_t all_memory();
  // What limits it and what is in use, for an error's text.
  static std::string describe_limits();

  // Never more than `capacity` bytes, on Device::cuda exactly so many. Addresses are taken as they are
  // needed, above those that are in use, so that limits on them (ulimit -v) allow what the work needs; pages
  // are backed on first touch (huge pages where the system has them).
  Arena(const char* name, int64_t capacity, Device device = Device::cpu, Canaries canaries = Canaries::off);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Uninitialised memory for the host's use, also on meta devices: the tape's nodes are real there. Throws
  // Error(device) naming the arena, what was asked and what limits it.
  void* allocate(int64_t bytes);
  // The same for what lives on the arena's device: on a meta device an address that nobody may touch.
  void* allocate_on_device(int64_t bytes);

  // The same, for n elements.
  template <class T>
  T* take(int64_t n) {
    return static_cast<T*>(allocate(n * static_cast<int64_t>(sizeof(T))));
  }
  template <class T>
  T* take_on_device(int64_t n) {
    return static_cast<T*>(allocate_on_device(n * static_cast<int64_t>(sizeof(T))));
  }

  Mark mark() const { return {used_, host_ ? host_->used_ : 0}; }
  // Frees everything allocated since `mark`. Throws Error(internal) naming the arena if a guard was
  // overwritten.
  void rewind(Mark mark) {
    if (canaries_ == Canaries::checked) verify_and_forget(mark.used);
    while (!host_blocks_.empty() && host_blocks_.back().first >= mark.used) host_blocks_.pop_back();
    if (host_) host_->rewind({mark.host});
    used_ = mark.used;
  }
  void reset() { rewind({}); }
  // rewind(mark), but what lies at `data`, allocated since, moves down to the mark and lives on. Not where
  // planned(device) is cuda, whose memory only a stream can move.
  void* rewind_keeping(Mark mark, const void* data, int64_t bytes);

  Device device() const { return device_; }
  int64_t used() const { return used_; }              // bytes
  int64_t high_water() const { return high_water_; }  // bytes, since construction
  int64_t capacity() const { return capacity_; }

 private:
  struct Guarded {
    int64_t offset, bytes;
  };
  void hold(int64_t bytes);                // takes addresses for as many bytes, at least
  int64_t footprint(int64_t bytes) const;  // bytes that an allocation takes, with its guard
  void guard(int64_t offset, int64_t bytes);
  void verify_and_forget(int64_t mark);

  const char* name_;
  Device device_;
  Canaries canaries_;
  std::vector<Guarded> guarded_;  // live allocations, if canaries are checked
  std::vector<std::pair<int64_t, std::unique_ptr<std::byte[]>>> host_blocks_;  // on Device::meta
  std::unique_ptr<Arena> host_;                                                // where planned() is cuda
  char* base_ = nullptr;
  int64_t room_ = 0;  // bytes from base_ on that no other arena takes
  int64_t capacity_, held_ = 0, used_ = 0, high_water_ = 0;
};

// Frees on leaving the scope what was allocated from `arena` inside it.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() noexcept(false) { arena_.rewind(mark_); }  // a broken guard throws
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace ziggurat
