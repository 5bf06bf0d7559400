// Every load and store of a kernel, seen one by one: kernels are compiled with gcc's hooks for its thread
// sanitizer, which call __tsan_read4(address) and its sisters before each access; accesses.cpp defines these.
// So an access is checked before it happens (bounds to the byte, shared memory that nobody wrote, races in
// shared memory) and counted.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "tests/emulation/symbols.h"

namespace ziggurat::emulation {

// What a kernel did, over all its launches. Loads and stores are those of device memory.
struct KernelCounts {
  int64_t launches = 0;
  int64_t block_threads = 0, dynamic_shared_bytes = 0;  // of a block, at most
  int64_t loads = 0, stores = 0;                        // of single threads
  int64_t loaded_bytes = 0, stored_bytes = 0;           // that threads asked for
  int64_t load_requests = 0, store_requests = 0;        // of warps: the same instruction of up to 32 threads
  int64_t load_sectors = 0, store_sectors = 0;          // of 32 bytes that these touched: what a GPU moves
};

class KernelError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Access : uint8_t { load, store, atomic };

class Accesses {
 public:
  // `constants`: where the launch's arguments are. `stacks`: of the kernel's threads.
  void begin_grid(KernelCounts& counts, Range constants, Range stacks, size_t dynamic_shared_bytes);
  void begin_block(int threads);
  void end_block();

  // By `thread` of the block. Throws KernelError.
  void access(int thread, uintptr_t address, size_t bytes, Access kind, uintptr_t site);
  void block_barrier() { ++block_epoch_; }
  void warp_barrier(int warp) { ++warp_epochs_[static_cast<size_t>(warp)]; }

  // Host memory that kernels may reach: pinned by cudaMallocHost.
  std::vector<Range> pinned;

 private:
  struct Logged {
    uintptr_t site, address;
    uint32_t bytes;
    uint16_t lane;
    Access kind;
  };
  struct Site {
    uintptr_t address = 0;
    Access kind = Access::load;
    std::array<uint32_t, 32> passes{};  // of each lane
  };
  struct Touch {
    uint64_t request, sector;
    bool operator<(const Touch& o) const {
      return request != o.request ? request < o.request : sector < o.sector;
    }
  };
  // The last accesses of a byte of shared memory.
  struct Shadow {
    uint32_t block = 0;  // that wrote it, by number
    struct By {
      uint32_t block_epoch = 0, warp_epoch = 0;
      int16_t thread = -1;
      bool atomic = false;
    } writer, reader, other_reader;
  };

  void access_shared(int thread, uintptr_t offset, size_t bytes, Access kind);
  bool unordered(const Shadow::By& earlier, int thread) const;
  void count_warp(std::vector<Logged>& log);

  KernelCounts* counts_ = nullptr;
  Range constants_, stacks_, shared_, program_;
  size_t dynamic_shared_bytes_ = 0;
  std::vector<std::vector<Logged>> logs_;  // per warp
  std::vector<Site> sites_;
  std::vector<Touch> touches_;
  std::vector<Shadow> shadow_;
  std::vector<uint32_t> warp_epochs_;
  uint32_t block_ = 0, block_epoch_ = 0;
  SharedVariable variable_;  // the last one that was touched
};

}  // namespace ziggurat::emulation
