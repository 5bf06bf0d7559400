#include <algorithm>

#include <sys/mman.h>

#include <ziggurat/core/error.h>
#include <ziggurat/memory/arena.h>

namespace ziggurat {

Arena::Arena(const char* name, int64_t capacity, Device device)
    : name_(name), device_(device), capacity_(capacity) {
  // Meta memory must have distinct addresses too, but is never backed: PROT_NONE.
  const int protection = device == Device::meta ? PROT_NONE : PROT_READ | PROT_WRITE;
  void* range = mmap(nullptr, static_cast<size_t>(std::max<int64_t>(capacity, 1)), protection,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check(range != MAP_FAILED, ErrorKind::device, "[arena {}] cannot reserve {} bytes of addresses", name_,
        capacity);
  base_ = static_cast<char*>(range);
  if (device == Device::cpu) {
    madvise(range, static_cast<size_t>(capacity), MADV_HUGEPAGE);  // best effort
  }
}

Arena::~Arena() { munmap(base_, static_cast<size_t>(std::max<int64_t>(capacity_, 1))); }

void* Arena::allocate(int64_t bytes) {
  // Also nothing gets an address of its own: two empty tensors must not look like one.
  const int64_t rounded = (std::max<int64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  check(used_ + rounded <= capacity_, ErrorKind::device,
        "[arena {}] {} bytes asked, {} of {} left: use a smaller micro-batch or turn recompute on", name_,
        bytes, capacity_ - used_, capacity_);
  char* p = base_ + used_;
  used_ += rounded;
  high_water_ = std::max(high_water_, used_);
  return p;
}

}  // namespace ziggurat
