#include "tests/emulation/accesses.h"

#include <algorithm>

#include <fmt/format.h>

#include "tests/emulation/device_memory.h"
#include "tests/emulation/dynamic_shared.h"

namespace ziggurat::emulation {

namespace {
constexpr const char* kVerbs[] = {"loads", "stores", "adds to"};
}

void Accesses::begin_grid(KernelCounts& counts, Range constants, Range stacks, size_t dynamic_shared_bytes) {
  counts_ = &counts;
  constants_ = constants;
  stacks_ = stacks;
  shared_ = thread_local_storage();
  program_ = program();
  dynamic_shared_bytes_ = dynamic_shared_bytes;
  shadow_.resize(shared_.bytes);
  variable_ = {};
  ++counts.launches;
  counts.dynamic_shared_bytes =
      std::max(counts.dynamic_shared_bytes, static_cast<int64_t>(dynamic_shared_bytes));
}

void Accesses::begin_block(int threads) {
  const size_t warps = static_cast<size_t>((threads + 31) / 32);
  if (logs_.size() < warps) logs_.resize(warps);
  for (auto& log : logs_) log.clear();
  warp_epochs_.assign(warps, 0);
  counts_->block_threads = std::max(counts_->block_threads, int64_t{threads});
  ++block_;
  ++block_epoch_;
}

void Accesses::end_block() {
  for (auto& log : logs_) count_warp(log);
}

void Accesses::access(int thread, uintptr_t address, size_t bytes, Access kind, uintptr_t site) {
  if (stacks_.holds(address)) return;
  DeviceMemory& memory = DeviceMemory::instance();
  if (memory.holds(address)) {
    if (!memory.allows(address, bytes)) {
      throw KernelError(
          fmt::format("{} {} bytes at {}", kVerbs[static_cast<int>(kind)], bytes, memory.describe(address)));
    }
    if (address % bytes != 0) {
      throw KernelError(fmt::format("{} {} bytes at {}: not a multiple of their size",
                                    kVerbs[static_cast<int>(kind)], bytes, memory.describe(address)));
    }
    logs_[static_cast<size_t>(thread / 32)].push_back(
        {site, address, static_cast<uint32_t>(bytes), static_cast<uint16_t>(thread % 32), kind});
    return;
  }
  if (shared_.holds(address)) return access_shared(thread, address - shared_.begin, bytes, kind);
  if (constants_.holds(address) || program_.holds(address)) return;
  for (const Range& range : pinned) {
    if (range.holds(address)) return;
  }
  throw KernelError(fmt::format("{} {} bytes at {:#x}, which is no memory of the device",
                                kVerbs[static_cast<int>(kind)], bytes, address));
}

// Whether nothing put an earlier access before one of `thread` now: no barrier of the block since, and for
// threads of one warp no __syncwarp.
bool Accesses::unordered(const Shadow::By& earlier, int thread) const {
  if (earlier.thread < 0 || earlier.thread == thread || earlier.block_epoch != block_epoch_) return false;
  return earlier.thread / 32 != thread / 32 ||
         earlier.warp_epoch == warp_epochs_[static_cast<size_t>(thread / 32)];
}

void Accesses::access_shared(int thread, uintptr_t offset, size_t bytes, Access kind) {
  if (offset - variable_.offset >= variable_.bytes) variable_ = shared_variable(offset);
  const size_t first = offset - variable_.offset;
  const bool dynamic =
      shared_.begin + variable_.offset == reinterpret_cast<uintptr_t>(dynamic_shared_memory());
  const size_t size = dynamic ? dynamic_shared_bytes_ : variable_.bytes;
  const auto refuse = [&](const std::string& what) {
    throw KernelError(fmt::format("{} {} bytes at byte {} of shared memory {} of {} bytes{}",
                                  kVerbs[static_cast<int>(kind)], bytes, first,
                                  dynamic ? "of the launch" : variable_.name, size, what));
  };
  if (first + bytes > size) refuse(": out of bounds");
  if ((shared_.begin + offset) % bytes != 0) refuse(": not a multiple of their size");
  const Shadow::By now{block_epoch_, warp_epochs_[static_cast<size_t>(thread / 32)],
                       static_cast<int16_t>(thread), kind == Access::atomic};
  for (size_t i = offset; i < offset + bytes; ++i) {
    Shadow& byte = shadow_[i];
    if (byte.block != block_) {
      if (kind != Access::store) refuse(", which no thread of the block has written");
      byte = {block_, now, {}, {}};
      continue;
    }
    if (!(now.atomic && byte.writer.atomic) && unordered(byte.writer, thread)) {
      refuse(fmt::format(": thread {} wrote there, with no barrier between them", byte.writer.thread));
    }
    if (kind == Access::load) {
      if (byte.reader.thread != thread || byte.reader.block_epoch != block_epoch_)
        byte.other_reader = byte.reader;
      byte.reader = now;
      continue;
    }
    for (const Shadow::By& reader : {byte.reader, byte.other_reader}) {
      if (unordered(reader, thread)) {
        refuse(fmt::format(": thread {} read there, with no barrier between them", reader.thread));
      }
    }
    byte.writer = now;
  }
}

// Threads of a warp run one after the other here, but together on a GPU: the n-th pass of each through one
// instruction is one request of the warp.
void Accesses::count_warp(std::vector<Logged>& log) {
  sites_.clear();
  touches_.clear();
  for (const Logged& entry : log) {
    auto site = std::find_if(sites_.begin(), sites_.end(),
                             [&](const Site& s) { return s.address == entry.site && s.kind == entry.kind; });
    if (site == sites_.end()) {
      sites_.push_back({entry.site, entry.kind, {}});
      site = sites_.end() - 1;
    }
    const uint64_t pass = site->passes[entry.lane]++;
    const bool load = entry.kind == Access::load;
    const uint64_t request =
        (static_cast<uint64_t>(site - sites_.begin()) << 33) | (pass << 1) | (load ? 1 : 0);
    for (uint64_t s = entry.address / 32; s <= (entry.address + entry.bytes - 1) / 32; ++s)
      touches_.push_back({request, s});
    ++(load ? counts_->loads : counts_->stores);
    (load ? counts_->loaded_bytes : counts_->stored_bytes) += entry.bytes;
  }
  std::sort(touches_.begin(), touches_.end());
  for (size_t i = 0; i < touches_.size(); ++i) {
    const bool load = touches_[i].request & 1;
    const bool new_request = i == 0 || touches_[i].request != touches_[i - 1].request;
    if (new_request) ++(load ? counts_->load_requests : counts_->store_requests);
    if (new_request || touches_[i].sector != touches_[i - 1].sector) {
      ++(load ? counts_->load_sectors : counts_->store_sectors);
    }
  }
  log.clear();
}

}  // namespace ziggurat::emulation
