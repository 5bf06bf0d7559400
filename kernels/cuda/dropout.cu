// One thread computes 16 bytes of each tensor, four values to a block of Philox; where sizes or addresses are
// no multiple of that, four single values. Floor: 2 n sizeof(T) bytes (3 with an offset). Ten rounds of
// Philox are 20 wide products and 40 other integer operations for four values: 15 a value, 4 a byte in fp32
// and 8 in bf16, where an H100 has about 5 a byte: memory's in fp32, near the integer units' in bf16.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>

#include <ziggurat/kernels/dropout.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kBlock = 4;  // values of a block of Philox

// The CPU's bits: the product and the sum are each rounded, not fused.
template <class T>
__device__ __forceinline__ float kept(float x, uint32_t bits, float rate, float scale) {
  return to_float(rounded<T>(__fmul_rn(x, Philox::to_uniform(bits) >= rate ? scale : 0.0f)));
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) dropout_kernel(DropoutArgs<T> g, float rate, float scale) {
  constexpr int kValues = N == 1 ? kBlock : N;  // of a thread
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kValues;
  if (first >= g.n) return;
  const Philox rng = g.rng.now();
  if constexpr (N == 1) {
    const Philox::Block bits = rng.block(static_cast<uint64_t>((g.first + first) / kBlock));
    for (int i = 0; i < kBlock && first + i < g.n; ++i) {
      const float k = kept<T>(to_float(g.x[first + i]), bits[static_cast<size_t>(i)], rate, scale);
      g.y[first + i] = rounded<T>(g.offset == nullptr ? k : __fadd_rn(to_float(g.offset[first + i]), k));
    }
  } else {
    Values<T, N> y = load<N>(g.x + first);
#pragma unroll
    for (int block = 0; block < N / kBlock; ++block) {
      const Philox::Block bits = rng.block(static_cast<uint64_t>((g.first + first) / kBlock + block));
#pragma unroll
      for (int i = 0; i < kBlock; ++i) {
        float& value = y.v[block * kBlock + i];
        value = kept<T>(value, bits[static_cast<size_t>(i)], rate, scale);
      }
    }
    if (g.offset != nullptr) {
      const Values<T, N> offset = load<N>(g.offset + first);
#pragma unroll
      for (int i = 0; i < N; ++i) y.v[i] = __fadd_rn(offset.v[i], y.v[i]);
    }
    store(g.y + first, y);
  }
}

}  // namespace

template <Device D, class T>
void dropout(const DropoutArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "dropout");
  const auto rate = static_cast<float>(g.rate), scale = static_cast<float>(1 / (1 - g.rate));
  constexpr int kN = kLanes<T>;
  if (fit_lanes(g.n, g.x, g.offset, g.y)) {
    launch(dropout_kernel<T, kN>, blocks_for(g.n, kThreads * kN), kThreads, 0, stream, g, rate, scale);
  } else {
    launch(dropout_kernel<T, 1>, blocks_for(g.n, kThreads * kBlock), kThreads, 0, stream, g, rate, scale);
  }
}

template void dropout<Device::cuda>(const DropoutArgs<float>&, Stream&);
template void dropout<Device::cuda>(const DropoutArgs<bf16>&, Stream&);

}  // namespace ziggurat::kernels
