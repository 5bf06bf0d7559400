#include "tests/emulation/device_memory.h"

#include <cstring>

#include <fmt/format.h>
#include <sys/mman.h>

namespace ziggurat::emulation {

namespace {
constexpr size_t kPage = 4096;
size_t pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
void* pointer(uintptr_t address) { return reinterpret_cast<void*>(address); }
}  // namespace

DeviceMemory& DeviceMemory::instance() {
  static DeviceMemory* memory =
      new DeviceMemory;  // never destroyed: threads may still wait when the process ends
  return *memory;
}

DeviceMemory::DeviceMemory() {
  void* range = mmap(nullptr, kRange, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED)
    throw std::runtime_error("the emulated device needs 64 GiB of addresses: ulimit -v");
  begin_ = next_ = reinterpret_cast<uintptr_t>(range);
}

// Addresses are not used again before free_all: a pointer to freed memory stays one.
void* DeviceMemory::allocate(size_t bytes) {
  const size_t span = pages(bytes == 0 ? 1 : bytes);
  if (live_bytes() + bytes > kCapacity || next_ + span + kPage > begin_ + kRange) return nullptr;
  void* result = pointer(next_);
  if (mprotect(result, span, PROT_READ | PROT_WRITE) != 0) return nullptr;
  std::memset(result, 0xff, span);
  if (!open_ && mprotect(result, span, PROT_NONE) != 0) return nullptr;
  allocations_[next_] = bytes;
  next_ += span + kPage;
  return result;
}

bool DeviceMemory::free(void* memory) {
  const auto it = allocations_.find(reinterpret_cast<uintptr_t>(memory));
  if (it == allocations_.end()) return false;
  mprotect(memory, pages(it->second), PROT_NONE);
  madvise(memory, pages(it->second), MADV_DONTNEED);
  allocations_.erase(it);
  cached_bytes_ = 0;
  return true;
}

void DeviceMemory::free_all() {
  while (!allocations_.empty()) free(pointer(allocations_.begin()->first));
  next_ = begin_;
  closing_error_ = fail_next_close_ = false;
}

void DeviceMemory::protect(int protection) {
  for (const auto& [address, bytes] : allocations_) {
    if (mprotect(pointer(address), pages(bytes == 0 ? 1 : bytes), protection) != 0) closing_error_ = true;
  }
}

DeviceMemory::Open::Open() {
  DeviceMemory& memory = instance();
  memory.closing_error_ = false;
  memory.open_ = true;
  memory.protect(PROT_READ | PROT_WRITE);
}

DeviceMemory::Open::~Open() {
  DeviceMemory& memory = instance();
  memory.open_ = false;
  memory.protect(PROT_NONE);
  if (memory.fail_next_close_) memory.closing_error_ = true;
  memory.fail_next_close_ = false;
}

bool DeviceMemory::look_up(uintptr_t address, size_t bytes) {
  auto it = allocations_.upper_bound(address);
  if (it == allocations_.begin()) return false;
  --it;
  const size_t offset = address - it->first;
  if (offset > it->second || bytes > it->second - offset) return false;
  cached_begin_ = it->first;
  cached_bytes_ = it->second;
  return true;
}

std::string DeviceMemory::describe(uintptr_t address) const {
  if (!holds(address)) return fmt::format("{:#x}, which is no memory of the device", address);
  auto it = allocations_.upper_bound(address);
  if (it == allocations_.begin())
    return fmt::format("{:#x}, in memory that was freed or never allocated", address);
  --it;
  const size_t offset = address - it->first;
  if (offset < it->second) return fmt::format("byte {} of an allocation of {} bytes", offset, it->second);
  if (offset < pages(it->second) + kPage) {
    return fmt::format("{} bytes behind the end of an allocation of {} bytes", offset - it->second,
                       it->second);
  }
  return fmt::format("{:#x}, in memory that was freed or never allocated", address);
}

size_t DeviceMemory::live_bytes() const {
  size_t sum = 0;
  for (const auto& [address, bytes] : allocations_) sum += bytes;
  return sum;
}

}  // namespace ziggurat::emulation
