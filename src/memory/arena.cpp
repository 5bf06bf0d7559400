#include <algorithm>
#include <cstring>
#include <exception>

#include <sys/mman.h>

#include <ziggurat/core/error.h>
#include <ziggurat/memory/arena.h>

namespace ziggurat {

namespace {
// All bits set is a NaN in f32, bf16 and f64, and -1 in i32.
constexpr int kFresh = 0xff;
constexpr unsigned char kGuardByte = 0xa5;
}  // namespace

Arena::Arena(const char* name, int64_t capacity, Device device, Canaries canaries)
    : name_(name),
      device_(device),
      canaries_(device == Device::cpu ? canaries : Canaries::off),
      capacity_(capacity) {
  // On Device::meta too: the tape's nodes and routing tables are real, only the tensors are never touched.
  void* range = mmap(nullptr, static_cast<size_t>(std::max<int64_t>(capacity, 1)), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check(range != MAP_FAILED, ErrorKind::device, "[arena {}] cannot reserve {} bytes of addresses", name_,
        capacity);
  base_ = static_cast<char*>(range);
  if (device == Device::cpu) {
    madvise(range, static_cast<size_t>(capacity), MADV_HUGEPAGE);  // best effort
  }
}

Arena::~Arena() { munmap(base_, static_cast<size_t>(std::max<int64_t>(capacity_, 1))); }

int64_t Arena::footprint(int64_t bytes) const {
  // Also nothing gets an address of its own: two empty tensors must not look like one.
  const int64_t lines = (std::max<int64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  return canaries_ == Canaries::checked ? lines + kGuard : lines;
}

void* Arena::allocate(int64_t bytes) {
  const int64_t rounded = footprint(bytes);
  check(used_ + rounded <= capacity_, ErrorKind::device,
        "[arena {}] {} bytes asked, {} of {} left: use a smaller micro-batch or turn recompute on", name_,
        bytes, capacity_ - used_, capacity_);
  char* p = base_ + used_;
  if (canaries_ == Canaries::checked) {
    std::memset(p, kFresh, static_cast<size_t>(bytes));
    guard(used_, bytes);
  }
  used_ += rounded;
  high_water_ = std::max(high_water_, used_);
  return p;
}

void* Arena::rewind_keeping(Mark mark, const void* data, int64_t bytes) {
  check(base_ + mark <= data && static_cast<const char*>(data) + bytes <= base_ + used_, ErrorKind::internal,
        "[arena {}] cannot keep {} bytes that were not allocated since the mark", name_, bytes);
  rewind(mark);
  char* p = base_ + mark;
  if (device_ != Device::meta) std::memmove(p, data, static_cast<size_t>(bytes));
  if (canaries_ == Canaries::checked) guard(mark, bytes);
  used_ += footprint(bytes);
  return p;
}

void Arena::guard(int64_t offset, int64_t bytes) {
  std::memset(base_ + offset + bytes, kGuardByte, static_cast<size_t>(footprint(bytes) - bytes));
  guarded_.push_back({offset, bytes});
}

void Arena::verify_and_forget(Mark mark) {
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
