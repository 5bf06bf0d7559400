#include <algorithm>
#include <vector>

#include <xxhash.h>

#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/bit_hash.h>

namespace ziggurat::train {

// One hash over those of blocks, which do not depend on how the tensor comes in pieces: these are multiples.
uint64_t BitHash::of(const Tensor& tensor) {
  constexpr int64_t kBlock = 1 << 17;  // elements
  std::vector<uint64_t> blocks(static_cast<size_t>((tensor.numel() + kBlock - 1) / kBlock));
  pieces_.read(tensor, [&](const Tensor& piece, int64_t first) {
    const auto* bytes = static_cast<const std::byte*>(piece.raw());
    const int64_t size = size_of(piece.dtype());
    parallel_for_blocks(piece.numel(), kBlock, [&](int64_t begin, int64_t end) {
      blocks[static_cast<size_t>((first + begin) / kBlock)] =
          XXH3_64bits(bytes + begin * size, static_cast<size_t>((end - begin) * size));
    });
  });
  return XXH3_64bits(blocks.data(), blocks.size() * sizeof(uint64_t));
}

}  // namespace ziggurat::train
