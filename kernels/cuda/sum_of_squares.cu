// Up to 1024 blocks add up a run of elements each, in double; one block then adds up their sums. Which thread
// adds what depends on n only, and how it is loaded changes no order. Floor: n sizeof(T) bytes, 2 FLOPs in
// double a value: memory's where the double units make a quarter of a FLOP a byte moved or more, as A100,
// H100 and B200 do.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/adamw.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kN = 4;  // floats of a thread at a time
constexpr int64_t kMostBlocks = 1024;
constexpr int kThreadsOfTotal = 256;

// partial[block] = the sum over its `run` elements, a multiple of kThreads * kN but for the last block's.
// `fits`: loads of 16 bytes do.
template <bool fits>
__global__ void __launch_bounds__(kThreads)
    partial_squares_kernel(const float* x, int64_t n, int64_t run, double* partial) {
  const int64_t begin = blockIdx.x * run, end = begin + run < n ? begin + run : n;
  double sums[kN] = {};
  for (int64_t at = begin + int64_t{threadIdx.x} * kN; at < end; at += kThreads * kN) {
    float values[kN] = {};
    if (fits && at + kN <= end) {
      load_floats(x + at, values);
    } else {
#pragma unroll
      for (int i = 0; i < kN; ++i) values[i] = at + i < end ? x[at + i] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kN; ++i) sums[i] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  }
  const double sum = block_sum<kThreads>((sums[0] + sums[1]) + (sums[2] + sums[3]));
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreadsOfTotal)
    total_kernel(const double* partial, int64_t blocks, double* total) {
  double sum = 0;
  for (int64_t b = threadIdx.x; b < blocks; b += kThreadsOfTotal) sum += partial[b];
  sum = block_sum<kThreadsOfTotal>(sum);
  if (threadIdx.x == 0) *total = sum;
}

}  // namespace

template <Device D, class T>
void sum_of_squares(const T* x, int64_t n, double* sum, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "sum_of_squares");
  const ArenaScope scope(workspace);
  constexpr int64_t kOfBlock = kThreads * kN;
  const int64_t loads = (n + kOfBlock - 1) / kOfBlock;  // of a whole block
  const int64_t run = (loads + kMostBlocks - 1) / kMostBlocks * kOfBlock;
  const unsigned blocks = n == 0 ? 0 : blocks_for(n, run);
  auto* const partial = workspace.take_on_device<double>(int64_t{blocks});
  launch(fit_lanes(kN, x) ? partial_squares_kernel<true> : partial_squares_kernel<false>, blocks, kThreads, 0,
         stream, x, n, run, partial);
  launch(total_kernel, 1, kThreadsOfTotal, 0, stream, partial, int64_t{blocks}, sum);
}

template void sum_of_squares<Device::cuda>(const float*, int64_t, double*, Arena&, Stream&);

}  // namespace ziggurat::kernels
