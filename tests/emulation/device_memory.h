// Memory of the emulated device. One reserved range of addresses holds every allocation; no page of it can be
// read or written by the host: only while a kernel or a copy runs (DeviceMemory::Open) are the live
// allocations open, and the pages between and behind them never. An allocation starts on a page and is
// followed by at least one closed page; bytes between its end and that page are found by the kernels' own
// checks (accesses.h), which know the exact sizes. Fresh memory is 0xff: a NaN in every floating-point type,
// -1 in every integer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace ziggurat::emulation {

class DeviceMemory {
 public:
  static DeviceMemory& instance();

  void* allocate(size_t bytes);  // null: the device has no more
  bool free(void* pointer);  // false: not what allocate returned, or freed before. Not queued: gone at once.
  void free_all();

  // All live allocations are open while it lives. A page that cannot be closed again is an error of
  // `closing_error`, which the next Open clears: it is reported only where nothing else went wrong.
  class Open {
   public:
    Open();
    ~Open();
    Open(const Open&) = delete;
    Open& operator=(const Open&) = delete;
  };
  bool closing_error() const { return closing_error_; }
  void fail_next_close() { fail_next_close_ = true; }  // as if the system had refused (for tests)

  // Whether an address belongs to the device's range at all, and whether a whole access lies in one live
  // allocation.
  bool holds(uintptr_t address) const { return address - begin_ < kRange; }
  bool allows(uintptr_t address, size_t bytes) {
    if (address - cached_begin_ < cached_bytes_ && bytes <= cached_bytes_ - (address - cached_begin_))
      return true;
    return look_up(address, bytes);
  }
  // "4 bytes behind the end of an allocation of 400", for messages.
  std::string describe(uintptr_t address) const;
  int64_t live() const { return static_cast<int64_t>(allocations_.size()); }
  size_t live_bytes() const;

 private:
  static constexpr size_t kRange = size_t{1} << 36;     // of addresses, not of memory
  static constexpr size_t kCapacity = size_t{1} << 31;  // bytes that live allocations may have together
  DeviceMemory();
  bool look_up(uintptr_t address, size_t bytes);
  void protect(int protection);

  uintptr_t begin_ = 0, next_ = 0;
  std::map<uintptr_t, size_t> allocations_;
  uintptr_t cached_begin_ = 0;
  size_t cached_bytes_ = 0;
  bool open_ = false, closing_error_ = false, fail_next_close_ = false;
};

}  // namespace ziggurat::emulation
