// The CUDA language as kernels use it: each built-in function against what the programming guide says of it.
#include <cmath>
#include <numeric>

#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cuda_bf16.h>
#include <kernels/cuda/device/dynamic_shared.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include "tests/emulation/emulator_tests.h"
#include "tests/support/allocation_counter.h"

namespace ziggurat::emulation {
namespace {

using Language = EmulatedTest;
constexpr unsigned kAll = 0xffffffffu;

template <class T, class... Parameters, class... Arguments>
std::vector<T> run(size_t n, void (*kernel)(T*, Parameters...), dim3 grid, dim3 block, size_t shared,
                   Arguments... arguments) {
  const DeviceArray<T> out(n);
  expect_success(start(kernel, grid, block, shared, nullptr, out.data(), arguments...));
  return out.get();
}
std::vector<int> of_lanes(int n, const std::function<int(int)>& value) {
  std::vector<int> all;
  for (int i = 0; i < n; ++i) all.push_back(value(i));
  return all;
}

__global__ void indices(int* out) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] =
      static_cast<int>(threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z + 1000 * blockIdx.x +
                       10000 * blockIdx.y + 100000 * blockIdx.z);
}

TEST_F(Language, EveryThreadOfEveryBlockRunsOnce) {
  const std::vector<int> got = run(4 * 3 * 2 * 2 * 3 * 5, indices, dim3(2, 3, 5), dim3(4, 3, 2), 0);
  size_t i = 0;
  for (int bz = 0; bz < 5; ++bz)
    for (int by = 0; by < 3; ++by)
      for (int bx = 0; bx < 2; ++bx)
        for (int z = 0; z < 2; ++z)
          for (int y = 0; y < 3; ++y)
            for (int x = 0; x < 4; ++x)
              ASSERT_EQ(got[i++], x + 10 * y + 100 * z + 1000 * bx + 10000 * by + 100000 * bz);
}

__global__ void shuffles(int* out, int which) {
  const int lane = static_cast<int>(threadIdx.x);
  int value = 100 + lane;
  if (which == 0) value = __shfl_sync(kAll, value, 5);
  if (which == 1) value = __shfl_up_sync(kAll, value, 3);
  if (which == 2) value = __shfl_down_sync(kAll, value, 3);
  if (which == 3) value = __shfl_xor_sync(kAll, value, 6);
  if (which == 4) value = __shfl_sync(kAll, value, 5, 8);
  if (which == 5) value = __shfl_up_sync(kAll, value, 3, 8);
  if (which == 6) value = __shfl_down_sync(kAll, value, 3, 8);
  if (which == 7) value = __shfl_xor_sync(kAll, value, 6, 8);
  out[lane] = value;
}

TEST_F(Language, Shuffles) {
  const std::vector<std::function<int(int)>> source = {
      [](int) { return 5; },
      [](int l) { return l < 3 ? l : l - 3; },
      [](int l) { return l + 3 > 31 ? l : l + 3; },
      [](int l) { return l ^ 6; },
      [](int l) { return l / 8 * 8 + 5; },
      [](int l) { return l % 8 < 3 ? l : l - 3; },
      [](int l) { return l % 8 + 3 > 7 ? l : l + 3; },
      [](int l) { return l ^ 6; },
  };
  for (size_t which = 0; which < source.size(); ++which) {
    EXPECT_EQ(run(32, shuffles, 1, 32, 0, static_cast<int>(which)),
              of_lanes(32, [&](int l) { return 100 + source[which](l); }))
        << which;
  }
}

__global__ void votes(unsigned* out) {
  const unsigned lane = threadIdx.x;
  out[lane] = __ballot_sync(kAll, lane % 3 == 0);
  out[32 + lane] = static_cast<unsigned>(__any_sync(kAll, lane == 40));
  out[64 + lane] = static_cast<unsigned>(__all_sync(kAll, lane < 32));
  out[96 + lane] = __match_any_sync(kAll, lane % 4);
  // A half warp of its own.
  if (lane >= 16) out[128 + lane] = __ballot_sync(0xffff0000u, lane % 2);
  if (lane < 16) out[128 + lane] = 0;
}

TEST_F(Language, Votes) {
  const std::vector<unsigned> got = run(160, votes, 1, 32, 0);
  for (unsigned lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(got[lane], 0x49249249u);
    EXPECT_EQ(got[32 + lane], 0u);
    EXPECT_EQ(got[64 + lane], 1u);
    EXPECT_EQ(got[96 + lane], 0x11111111u << lane % 4);
    EXPECT_EQ(got[128 + lane], lane < 16 ? 0 : 0xaaaa0000u);
  }
}

__global__ void reductions(int* out) {
  const int value = static_cast<int>(threadIdx.x) - 20;
  const auto bits = static_cast<unsigned>(threadIdx.x) | 64u;
  if (threadIdx.x % 2 == 0) return;  // odd lanes among themselves
  constexpr unsigned kOdd = 0xaaaaaaaau;
  out[0] = __reduce_add_sync(kOdd, value);
  out[1] = __reduce_min_sync(kOdd, value);
  out[2] = __reduce_max_sync(kOdd, value);
  out[3] = static_cast<int>(__reduce_and_sync(kOdd, bits));
  out[4] = static_cast<int>(__reduce_or_sync(kOdd, bits));
  out[5] = static_cast<int>(__reduce_xor_sync(kOdd, bits));
  out[6] = static_cast<int>(__reduce_max_sync(kOdd, static_cast<unsigned>(value)));
}

TEST_F(Language, Reductions) {
  EXPECT_EQ(run(7, reductions, 1, 32, 0), (std::vector<int>{256 - 320, -19, 11, 65, 95, 0, -1}));
}

// Inclusive sums over a block: shuffles within warps, shared memory between them.
template <int kThreads>
__global__ void scan(int* x) {
  __shared__ int totals[kThreads / 32];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  int value = x[thread];
  for (unsigned delta = 1; delta < 32; delta *= 2) {
    const int other = __shfl_up_sync(kAll, value, delta);
    if (lane >= static_cast<int>(delta)) value += other;
  }
  if (lane == 31) totals[warp] = value;
  __syncthreads();
  for (int w = 0; w < warp; ++w) value += totals[w];
  x[thread] = value;
}

TEST_F(Language, AScanOfABlock) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    reset(seed);
    std::vector<int> values(256);
    std::iota(values.begin(), values.end(), 1);
    const DeviceArray<int> x(values);
    expect_success(start(scan<256>, 1, 256, 0, nullptr, x.data()));
    EXPECT_EQ(x.get(), of_lanes(256, [](int i) { return (i + 1) * (i + 2) / 2; }));
  }
}

__global__ void sums(float* out) {
  out[threadIdx.x] = kernels::block_sum<128>(static_cast<float>(threadIdx.x));
  out[threadIdx.x] += kernels::block_sum<128>(1.0f);
}

TEST_F(Language, ASumOverABlockMayBeTakenAgain) {
  EXPECT_EQ(run(128, sums, 1, 128, 0), std::vector<float>(128, 127 * 64 + 128));
}

// Threads and their stacks are made once: what a kernel takes does not grow with its blocks.
TEST_F(Language, BlocksAllocateNothing) {
  const auto allocations = [](unsigned blocks) {
    const DeviceArray<int> x(256);
    const int64_t before = test::allocation_count();
    expect_success(start(scan<256>, blocks, 256, 0, nullptr, x.data()));
    expect_success(cudaDeviceSynchronize());
    return test::allocation_count() - before;
  };
  allocations(4);
  const int64_t few = allocations(1);
  EXPECT_LT(few, 20);
  EXPECT_EQ(allocations(40), few);
}

__global__ void counting(int* out) {
  const int thread = static_cast<int>(threadIdx.x);
  const int count = __syncthreads_count(thread % 3 == 0);
  const int any = __syncthreads_or(thread == 63), all = __syncthreads_and(thread != 63);
  out[thread] = count * 100 + any * 10 + all;
}

TEST_F(Language, BarriersThatCount) { EXPECT_EQ(run(64, counting, 1, 64, 0), std::vector<int>(64, 2210)); }

// One warp writes, another reads, by two named barriers; a third takes no part.
__global__ void hand_over(int* out) {
  __shared__ int box[32];
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int i = 0; i < 4; ++i) {
    if (warp == 0) {
      box[lane] = i * 100 + static_cast<int>(lane);
      __barrier_sync_count(1, 64);  // full
      __barrier_sync_count(2, 64);  // empty
    } else if (warp == 1) {
      __barrier_sync_count(1, 64);
      out[i * 32 + static_cast<int>(lane)] = box[31 - lane];
      __barrier_sync_count(2, 64);
    }
  }
}

TEST_F(Language, NamedBarriers) {
  EXPECT_EQ(run(128, hand_over, 1, 96, 0), of_lanes(128, [](int i) { return i / 32 * 100 + 31 - i % 32; }));
}

__global__ void groups(int* out) {
  namespace cg = cooperative_groups;
  const auto block = cg::this_thread_block();
  const auto tile = cg::tiled_partition<8>(block);
  const int rank = static_cast<int>(tile.thread_rank());
  const int sum = cg::reduce(tile, static_cast<int>(block.thread_rank()), cg::plus<int>());
  const int most = cg::reduce(tile, rank, cg::greater<int>());
  block.sync();
  out[threadIdx.x] = sum * 1000 + most * 100 + static_cast<int>(tile.ballot(rank == 2)) * 10 +
                     static_cast<int>(tile.meta_group_rank());
}

TEST_F(Language, CooperativeGroups) {
  EXPECT_EQ(run(64, groups, 1, 64, 0),
            of_lanes(64, [](int i) { return (i / 8 * 64 + 28) * 1000 + 700 + 40 + i / 8; }));
}

__global__ void atomics(int* out, float* sum, unsigned long long* both) {
  __shared__ int in_block;
  if (threadIdx.x == 0) in_block = 0;
  __syncthreads();
  const int id = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&in_block, 1);
  atomicAdd(out, id);
  atomicMax(out + 1, id);
  atomicMin(out + 2, id);
  atomicOr(out + 3, 1 << id % 16);
  atomicAdd(sum, 0.5f);
  atomicAdd(both, 1ull << 32);
  for (int seen = out[4]; atomicCAS(out + 4, seen, seen + 2) != seen;) seen = out[4];
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(out + 5, in_block);
}

TEST_F(Language, Atomics) {
  const DeviceArray<int> out(std::vector<int>{0, 0, 1000, 0, 0, 0});
  const DeviceArray<float> sum(std::vector<float>{0});
  const DeviceArray<unsigned long long> both(std::vector<unsigned long long>{5});
  expect_success(start(atomics, 3, 64, 0, nullptr, out.data(), sum.data(), both.data()));
  EXPECT_EQ(out.get(), (std::vector<int>{192 * 191 / 2, 191, 0, 0xffff, 384, 192}));
  EXPECT_EQ(sum.get()[0], 96.0f);
  EXPECT_EQ(both.get()[0], (192ull << 32) + 5);
}

__global__ void big_tile(float* out, int n) {
  float* tile = kernels::dynamic_shared<float>();
  for (int i = static_cast<int>(threadIdx.x); i < n; i += 64) tile[i] = static_cast<float>(i);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < n; i += 64) out[i] = tile[n - 1 - i];
}

TEST_F(Language, DynamicSharedMemoryOfTwoHundredKilobytes) {
  constexpr int kN = 50000;
  expect_success(cudaFuncSetAttribute(big_tile, cudaFuncAttributeMaxDynamicSharedMemorySize, kN * 4));
  const std::vector<float> got = run(kN, big_tile, 1, 64, kN * 4, kN);
  for (int i = 0; i < kN; ++i) ASSERT_EQ(got[static_cast<size_t>(i)], static_cast<float>(kN - 1 - i));
}

__global__ void bf16_there_and_back(bf16* x, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) x[i] = kernels::rounded<bf16>(kernels::to_float(x[i]) * 1.00390625f);
}

TEST_F(Language, Bf16RoundsAsTheCpuDoes) {
  std::vector<bf16> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<uint16_t>(i);
  const DeviceArray<bf16> x(all);
  expect_success(start(bf16_there_and_back, 256, 256, 0, nullptr, x.data(), 65536));
  const std::vector<bf16> got = x.get();
  for (size_t i = 0; i < all.size(); ++i) {
    const bf16 want(static_cast<float>(all[i]) * 1.00390625f);
    if (std::isnan(static_cast<float>(want))) {
      ASSERT_TRUE(std::isnan(static_cast<float>(got[i]))) << i;
    } else {
      ASSERT_EQ(got[i].bits, want.bits) << i;
    }
  }
}

__global__ void bf16_pairs(float* out) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(1.5f, -2.25f);
  const float2 back = __bfloat1622float2(pair);
  out[0] = back.x;
  out[1] = back.y;
  out[2] = __bfloat162float(__float2bfloat16(3.0f));
}

TEST_F(Language, PairsOfBf16) {
  EXPECT_EQ(run(3, bf16_pairs, 1, 1, 0), (std::vector<float>{1.5f, -2.25f, 3.0f}));
}

// Counts
// -------------------------------------------------------------------------------------------------------------

__global__ void copy_vectors(int4* to, const int4* from) {
  const int4 v = from[threadIdx.x];
  to[threadIdx.x] = make_int4(v.w, v.z, v.y, v.x);
}
__global__ void copy_strided(int* to, const int* from, int stride) {
  to[threadIdx.x] = from[threadIdx.x * stride];
}

TEST_F(Language, ALoadOfSixteenBytesIsOne) {
  std::vector<int> values(256);
  std::iota(values.begin(), values.end(), 0);
  const DeviceArray<int> from(values), to(256);
  expect_success(start(copy_vectors, 1, 64, 0, nullptr, reinterpret_cast<int4*>(to.data()),
                       reinterpret_cast<const int4*>(from.data())));
  EXPECT_EQ(to.get(), of_lanes(256, [](int i) { return i / 4 * 4 + 3 - i % 4; }));
  const KernelCounts did = counts("copy_vectors");
  EXPECT_EQ(did.loads, 64);
  EXPECT_EQ(did.loaded_bytes, 1024);
  EXPECT_EQ(did.load_requests, 2);
  EXPECT_EQ(did.load_sectors, 32);
  EXPECT_EQ(did.stores, 64);
  EXPECT_EQ(did.store_sectors, 32);
}

TEST_F(Language, StridesCostSectors) {
  for (const int stride : {1, 2, 8, 16}) {
    reset(default_seed());
    const DeviceArray<int> from(std::vector<int>(1024)), to(64);
    expect_success(start(copy_strided, 1, 64, 0, nullptr, to.data(), from.data(), stride));
    expect_success(cudaDeviceSynchronize());
    const KernelCounts did = counts("copy_strided");
    EXPECT_EQ(did.loads, 64);
    EXPECT_EQ(did.load_requests, 2);
    EXPECT_EQ(did.load_sectors, 8 * std::min(stride, 8));
    EXPECT_EQ(did.store_sectors, 8);
  }
}

// The n-th pass of each lane through a loop is one request, also where lanes come in another order.
__global__ void rows(float* x, int passes) {
  for (int i = 0; i < passes; ++i) {
    x[static_cast<unsigned>(i) * 32 + threadIdx.x] = 1;
    if (i % 2 == 0) __syncwarp();
  }
}

TEST_F(Language, PassesOfALoopAreRequests) {
  run(320, rows, 1, 32, 0, 10);
  EXPECT_EQ(counts("rows").store_requests, 10);
  EXPECT_EQ(counts("rows").store_sectors, 40);
  EXPECT_EQ(counts("no such kernel").launches, 0);
}

}  // namespace
}  // namespace ziggurat::emulation
