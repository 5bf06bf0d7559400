#include <algorithm>
#include <array>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/dropout.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {
constexpr int64_t kBlock = 16384;              // elements a thread takes at once
constexpr int64_t kTile = 4 * Philox::kBatch;  // elements of a tile: its random bits stay in L1
static_assert(kBlock % kTile == 0);
}  // namespace

template <Device D, class T>
void dropout(const DropoutArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "dropout");
  using A = Accum<T>;
  parallel_for_blocks(g.n, kBlock, [=](int64_t begin, int64_t end) {
    const A scale = A(1 / (1 - g.rate));  // locals: read through the capture, they keep gcc from vectorising
    const float rate = static_cast<float>(g.rate);
    const Philox rng = g.rng.now();
    std::array<uint32_t, kTile> bits;
    T kept[kTile];
    for (int64_t first = begin; first < end; first += kTile) {
      rng.blocks(static_cast<uint64_t>((g.first + first) / 4), bits);
      const int64_t size = std::min(kTile, end - first);
      const T* x = g.x + first;
      for (int64_t i = 0; i < size; ++i) {
        kept[i] = T(A(x[i]) * (Philox::to_uniform(bits[i]) >= rate ? scale : A(0)));
      }
      T* y = g.y + first;
      if (g.offset == nullptr) {
        std::copy(kept, kept + size, y);
      } else {
        const T* offset = g.offset + first;
        for (int64_t i = 0; i < size; ++i) y[i] = T(A(offset[i]) + A(kept[i]));
      }
    }
  });
}

template void dropout<Device::cpu>(const DropoutArgs<float>&, Stream&);
template void dropout<Device::cpu>(const DropoutArgs<bf16>&, Stream&);
template void dropout<Device::cpu>(const DropoutArgs<double>&, Stream&);

}  // namespace ziggurat::kernels
