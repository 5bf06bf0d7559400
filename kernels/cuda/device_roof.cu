// Reading: as many blocks as fill the largest GPU, each thread with several loads of 16 bytes under way.
// Floor: 4 n bytes.
#include <algorithm>

#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/device_roof.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256, kN = 4;  // floats of a load

__global__ void nothing_kernel() {}

__global__ void __launch_bounds__(kThreads) read_kernel(const float* x, int64_t n, float* sums) {
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kN, whole = n - n % kN;
  float sum = 0;
#pragma unroll 4
  for (int64_t at = first; at < whole; at += int64_t{gridDim.x} * kThreads * kN) {
    const Values<float, kN> values = load<kN>(x + at);
#pragma unroll
    for (int i = 0; i < kN; ++i) sum += values.v[i];
  }
  if (first < n % kN * kN) sum += x[whole + first / kN];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
  if (blockIdx.x != 0) return;
  for (int64_t i = gridDim.x + threadIdx.x; i < kReadSums; i += kThreads)
    sums[i] = 0;  // of blocks that small x has not
}

}  // namespace

template <Device D>
void do_nothing(Stream& stream) {
  launch(nothing_kernel, 1, kWarp, 0, stream);
}

template <Device D>
void read_all(const float* x, int64_t n, float* sums, Stream& stream) {
  const unsigned blocks = std::clamp(blocks_for(n, kThreads * kN), 1u, static_cast<unsigned>(kReadSums));
  launch(read_kernel, blocks, kThreads, 0, stream, x, n, sums);
}

template void do_nothing<Device::cuda>(Stream&);
template void read_all<Device::cuda>(const float*, int64_t, float*, Stream&);

}  // namespace ziggurat::kernels
