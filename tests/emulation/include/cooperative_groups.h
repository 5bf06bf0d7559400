// CUDA's cooperative groups of a block and of tiles of a warp, as far as kernels/cuda uses them.
#pragma once

#include <cuda_runtime.h>

namespace cooperative_groups {

class thread_block {
 public:
  static unsigned size() { return blockDim.x * blockDim.y * blockDim.z; }
  static unsigned num_threads() { return size(); }
  static unsigned thread_rank() { return static_cast<unsigned>(ziggurat::emulation::thread_rank()); }
  static void sync(ZIGGURAT_SITE) { __syncthreads(file, line); }
};
inline thread_block this_thread_block() { return {}; }

template <unsigned Size>
class thread_block_tile {
  static_assert(Size <= 32 && (Size & (Size - 1)) == 0);

 public:
  static unsigned size() { return Size; }
  static unsigned num_threads() { return Size; }
  unsigned thread_rank() const { return rank_ % Size; }
  unsigned meta_group_rank() const { return rank_ / Size; }
  unsigned meta_group_size() const { return (thread_block::size() + Size - 1) / Size; }
  void sync(ZIGGURAT_SITE) const { __syncwarp(mask(), file, line); }
  template <class T>
  T shfl(T value, int source, ZIGGURAT_SITE) const {
    return __shfl_sync(mask(), value, source, Size, file, line);
  }
  template <class T>
  T shfl_down(T value, unsigned delta, ZIGGURAT_SITE) const {
    return __shfl_down_sync(mask(), value, delta, Size, file, line);
  }
  template <class T>
  T shfl_up(T value, unsigned delta, ZIGGURAT_SITE) const {
    return __shfl_up_sync(mask(), value, delta, Size, file, line);
  }
  template <class T>
  T shfl_xor(T value, unsigned bits, ZIGGURAT_SITE) const {
    return __shfl_xor_sync(mask(), value, static_cast<int>(bits), Size, file, line);
  }
  int any(int predicate, ZIGGURAT_SITE) const { return __any_sync(mask(), predicate, file, line); }
  int all(int predicate, ZIGGURAT_SITE) const { return __all_sync(mask(), predicate, file, line); }
  unsigned ballot(int predicate, ZIGGURAT_SITE) const {
    return __ballot_sync(mask(), predicate, file, line) >> first_lane();
  }

 private:
  unsigned first_lane() const { return rank_ % 32 / Size * Size; }
  unsigned mask() const { return static_cast<unsigned>(((uint64_t{1} << Size) - 1) << first_lane()); }
  unsigned rank_ = static_cast<unsigned>(ziggurat::emulation::thread_rank());
};
template <unsigned Size>
thread_block_tile<Size> tiled_partition(const thread_block&) {
  return {};
}

}  // namespace cooperative_groups
