#include <algorithm>
#include <cstring>
#include <exception>
#include <new>

#include <sys/mman.h>
#include <unistd.h>

#include "memory/addresses.h"
#include <ziggurat/core/error.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/backend.h>

namespace ziggurat {

namespace {
// All bits set is a NaN in f32, bf16 and f64, and -1 in i32.
constexpr int kFresh = 0xff;
constexpr unsigned char kGuardByte = 0xa5;
constexpr int64_t kHugePage = int64_t{1} << 21;
constexpr int64_t kStep =
    int64_t{1} << 25;  // addresses that an arena takes at least; smaller ones have all at once
}  // namespace

int64_t Arena::all_memory() { return memory_limit(); }
std::string Arena::describe_limits() { return describe_memory_limits(); }

Arena::Arena(const char* name, int64_t capacity, Device device, Canaries canaries)
    : name_(name),
      device_(device),
      canaries_(device == Device::cpu ? canaries : Canaries::off),
      capacity_(capacity) {
  if (planned(device_) == Device::cuda) host_ = std::make_unique<Arena>(name, all_memory());
  if (is_meta(device_)) {
    base_ = reinterpret_cast<char*>(kAlignment);  // anything but null
    return;
  }
  if (device_ == Device::cuda) {
    base_ = static_cast<char*>(backend(device_).allocate(std::max<int64_t>(capacity_, 1)));
    check(
        base_ != nullptr, ErrorKind::device,
        "[arena {}] cannot get {} bytes of the device's memory: {} are free. Use a smaller micro-batch, turn "
        "train.recompute on, or use more ranks",
        name_, capacity_, backend(device_).free_memory());
    return;
  }
  if (capacity_ > kStep) base_ = take_room(capacity_);
  if (base_ != nullptr) {
    room_ = capacity_;
    return;
  }
  base_ = map_memory(nullptr, std::max<int64_t>(capacity_, 1));
  held_ = capacity_;
  if (base_ != nullptr) return;
  fail(ErrorKind::device, "[arena {}] cannot get {} bytes of memory: {}", name_, capacity_,
       describe_memory_limits());
}

Arena::~Arena() {
  if (is_meta(device_)) return;
  if (device_ == Device::cuda) {
    backend(device_).free(base_);
    return;
  }
  if (room_ == 0 || held_ > 0) munmap(base_, static_cast<size_t>(std::max<int64_t>(held_, 1)));
  if (room_ > 0) give_back_room(base_);
}

// Steps of an eighth: few of them, and little that is never used.
void Arena::hold(int64_t bytes) {
  if (bytes <= held_) return;
  const int64_t page = sysconf(_SC_PAGESIZE), most = (capacity_ + page - 1) / page * page;
  const auto mapped_up_to = [&](int64_t end) {
    end = std::min((end + kHugePage - 1) / kHugePage * kHugePage, most);
    if (map_memory(base_ + held_, end - held_) == nullptr) return false;
    held_ = end;
    return true;
  };
  if (mapped_up_to(std::max(bytes + bytes / 8, kStep)) || mapped_up_to(bytes)) return;
  fail(ErrorKind::device,
       "[arena {}] cannot get memory for {} bytes: {}. Or use a smaller micro-batch, turn train.recompute "
       "on, or "
       "use more ranks",
       name_, bytes, describe_memory_limits());
}

int64_t Arena::footprint(int64_t bytes) const {
  // Also nothing gets an address of its own: two empty tensors must not look like one.
  const int64_t lines = (std::max<int64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  return canaries_ == Canaries::checked ? lines + kGuard : lines;
}

void* Arena::allocate(int64_t bytes) {
  if (host_) return host_->allocate(bytes);
  void* const p = allocate_on_device(bytes);
  if (device_ != Device::meta) return p;
  const auto size = static_cast<size_t>(std::max<int64_t>(bytes, 1) + kAlignment);
  try {
    host_blocks_.emplace_back(used_ - footprint(bytes), std::unique_ptr<std::byte[]>(new std::byte[size]));
  } catch (const std::bad_alloc&) {
    fail(ErrorKind::device, "[arena {}] cannot get {} bytes of memory: {}", name_, bytes,
         describe_memory_limits());
  }
  const auto block = reinterpret_cast<uintptr_t>(host_blocks_.back().second.get());
  return reinterpret_cast<void*>((block + kAlignment - 1) / kAlignment * kAlignment);
}

void* Arena::allocate_on_device(int64_t bytes) {
  const int64_t rounded = footprint(bytes);
  if (rounded > capacity_ - used_) [[unlikely]] {
    fail(ErrorKind::device,
         "[arena {}] {} bytes asked, {} of {} left: use a smaller micro-batch or turn recompute on ({})",
         name_, bytes, capacity_ - used_, capacity_, describe_memory_limits());
  }
  char* p = base_ + used_;
  if (device_ == Device::cpu) hold(used_ + rounded);
  if (canaries_ == Canaries::checked) {
    std::memset(p, kFresh, static_cast<size_t>(bytes));
    guard(used_, bytes);
  }
  used_ += rounded;
  high_water_ = std::max(high_water_, used_);
  return p;
}

void* Arena::rewind_keeping(Mark mark, const void* data, int64_t bytes) {
  check(!host_, ErrorKind::internal, "[arena {}] cannot move memory of the device", name_);
  check(base_ + mark.used <= data && static_cast<const char*>(data) + bytes <= base_ + used_,
        ErrorKind::internal, "[arena {}] cannot keep {} bytes that were not allocated since the mark", name_,
        bytes);
  rewind(mark);
  char* p = base_ + mark.used;
  if (device_ != Device::meta) std::memmove(p, data, static_cast<size_t>(bytes));
  if (canaries_ == Canaries::checked) guard(mark.used, bytes);
  used_ += footprint(bytes);
  return p;
}

void Arena::guard(int64_t offset, int64_t bytes) {
  std::memset(base_ + offset + bytes, kGuardByte, static_cast<size_t>(footprint(bytes) - bytes));
  guarded_.push_back({offset, bytes});
}

void Arena::verify_and_forget(int64_t mark) {
  const bool unwinding = std::uncaught_exceptions() > 0;  // another error is on its way: don't hide it
  while (!guarded_.empty() && guarded_.back().offset >= mark) {
    const auto [offset, bytes] = guarded_.back();
    guarded_.pop_back();
    if (unwinding) continue;
    const auto* begin = reinterpret_cast<const unsigned char*>(base_ + offset + bytes);
    const auto* end = reinterpret_cast<const unsigned char*>(base_ + offset + footprint(bytes));
    const auto* broken = std::find_if(begin, end, [](unsigned char byte) { return byte != kGuardByte; });
    check(broken == end, ErrorKind::internal,
          "[arena {}] somebody wrote {} bytes behind the end of an allocation of {} bytes at offset {}",
          name_, broken - begin, bytes, offset);
  }
}

}  // namespace ziggurat
