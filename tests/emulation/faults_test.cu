// Planted faults: each must be found, and named so that it can be found in the kernel.
#include <thread>

#include <cuda_pipeline.h>
#include <kernels/cuda/device/dynamic_shared.h>

#include "tests/emulation/device_memory.h"
#include "tests/emulation/emulator_tests.h"

namespace ziggurat::emulation {
namespace {

using Faults = EmulatedTest;
constexpr unsigned kAll = 0xffffffffu;

// Device memory
// ------------------------------------------------------------------------------------------------------

using FaultsDeathTest = EmulatedTest;

TEST_F(FaultsDeathTest, AHostReadOfDeviceMemoryEndsTheProcess) {
  const DeviceArray<float> x(std::vector<float>{1, 2, 3});
  expect_success(cudaDeviceSynchronize());
  EXPECT_DEATH(
      {
        const volatile float read = x.data()[1];
        (void)read;
      },
      "the host touched memory of the emulated device");
}

TEST_F(FaultsDeathTest, AHostWriteOfDeviceMemoryEndsTheProcess) {
  const DeviceArray<float> x(3);
  EXPECT_DEATH(*const_cast<volatile float*>(x.data()) = 1, "the host touched memory of the emulated device");
}

TEST_F(FaultsDeathTest, AFunctionOfTheHostInAQueueMayNotReadItEither) {
  expect_success(cudaLaunchHostFunc(
      nullptr, [](void* p) { *static_cast<volatile float*>(p) = 1; }, leaked<float>(3)));
  EXPECT_DEATH(cudaDeviceSynchronize(), "the host touched memory of the emulated device");
  expect_success(cudaLaunchHostFunc(
      nullptr, [](void*) {}, nullptr));
  reset(default_seed());  // drops them
}

__global__ void copy(const float* from, float* to, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) to[i] = from[i];
}

TEST_F(Faults, OneElementTooManyIsFound) {
  expect_fault({"copy, block (1, 0, 0), thread 36: loads 4 bytes at 0 bytes behind the end of an allocation "
                "of 400 bytes"},
               copy, 2, 64, 0, leaked<float>(100), leaked<float>(101), 101);
  expect_fault(
      {"copy, block (1, 0, 0), thread 36: stores 4 bytes at 0 bytes behind the end of an allocation of 400"},
      copy, 2, 64, 0, leaked<float>(101), leaked<float>(100), 101);
}

__global__ void store_at(float* to, int64_t i) { to[i] = 1; }

TEST_F(Faults, FarIndicesAndOtherPointersAreFound) {
  expect_fault({"store_at", "freed or never allocated"}, store_at, 1, 1, 0, leaked<float>(100),
               int64_t{1} << 20);
  expect_fault({"freed or never allocated"}, store_at, 1, 1, 0, leaked<float>(100), int64_t{-1});
  expect_fault({"no memory of the device"}, store_at, 1, 1, 0, static_cast<float*>(nullptr), 0);
  std::vector<float> on_the_host(10);
  expect_fault({"stores 4 bytes", "no memory of the device"}, store_at, 1, 1, 0, on_the_host.data(), 3);
}

// Code that was not compiled for the emulator touches a page that is not there.
__global__ void fill(char* to, int n) { std::memset(to, 1, static_cast<size_t>(n)); }

TEST_F(Faults, PagesBehindAnAllocationAreClosed) {
  volatile int n = 5000;  // so that the compiler calls the library's memset
  expect_fault({"fill", "touches"}, fill, 1, 1, 0, leaked<char>(4096), static_cast<int>(n));
}

TEST_F(Faults, AlsoOnAThreadOfItsOwn) {
  std::thread([] {
    volatile int n = 5000;
    expect_fault({"fill", "touches"}, fill, 1, 1, 0, leaked<char>(4096), static_cast<int>(n));
  }).join();
}

TEST_F(Faults, MemoryThatWasFreedIsFound) {
  float* x = leaked<float>(100);
  ASSERT_EQ(start(store_at, 1, 1, 0, nullptr, x, 3), cudaSuccess);
  ASSERT_EQ(cudaFree(x), cudaSuccess);  // runs nothing: the kernel still waits
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_THAT(cudaGetErrorString(cudaErrorLaunchFailure), testing::HasSubstr("freed"));
  reset(default_seed());
}

__global__ void load_vector(const float* from, float* to) {
  *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
}

TEST_F(Faults, AVectorAtAnAddressThatIsNoMultipleIsFound) {
  expect_fault({"loads 16 bytes", "not a multiple"}, load_vector, 1, 1, 0, leaked<float>(100) + 1,
               leaked<float>(100));
}

__global__ void recurse(volatile int* depth, int n) {
  volatile char frame[1024];
  frame[0] = 1;
  *depth = n;
  if (n > 0) recurse(depth, n - 1);
  *depth = frame[0];
}

TEST_F(Faults, AStackThatOverflowsIsFound) {
  expect_fault({"recurse", "bytes of stack"}, recurse, 1, 32, 0, leaked<int>(1), 1000);
}

// Shared memory
// ------------------------------------------------------------------------------------------------------

__global__ void reverse(float* x, int missing_barrier) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  if (!missing_barrier) __syncthreads();
  x[threadIdx.x] = tile[63 - threadIdx.x];
}

TEST_F(Faults, AMissingBarrierIsFound) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    reset(seed);
    expect_success(start(reverse, 1, 64, 0, nullptr, leaked<float>(64), 0));
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    reset(seed);
    expect_success(start(reverse, 1, 64, 0, nullptr, leaked<float>(64), 1));
    EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
    EXPECT_THAT(cudaGetErrorString(cudaErrorLaunchFailure),
                testing::AnyOf(testing::HasSubstr("no thread of the block has written"),
                               testing::HasSubstr("with no barrier between them")));
  }
  reset(default_seed());
}

// The second barrier of a loop: the next round overwrites what others still read.
__global__ void rotate(float* x, int rounds, int barriers) {
  __shared__ float tile[64];
  for (int i = 0; i < rounds; ++i) {
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = tile[(threadIdx.x + 1) % 64];
    if (barriers == 2) __syncthreads();
  }
}

TEST_F(Faults, ABarrierMissingAtTheEndOfALoopIsFound) {
  expect_success(start(rotate, 1, 64, 0, nullptr, leaked<float>(64), 3, 2));
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  reset(default_seed());
  expect_fault({"rotate", "tile", "with no barrier between them"}, rotate, 1, 64, 0, leaked<float>(64), 3, 1);
}

// Within a warp too: lanes do not run in lockstep.
__global__ void next_lane(float* x, int synchronise) {
  __shared__ float tile[32];
  tile[threadIdx.x] = x[threadIdx.x];
  if (synchronise) __syncwarp();
  x[threadIdx.x] = tile[(threadIdx.x + 1) % 32];
}

TEST_F(Faults, AMissingSyncwarpIsFound) {
  expect_success(start(next_lane, 1, 32, 0, nullptr, leaked<float>(32), 1));
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  reset(default_seed());
  expect_fault({"next_lane", "tile"}, next_lane, 1, 32, 0, leaked<float>(32), 0);
}

__global__ void read_unwritten(float* x) {
  __shared__ float tile[64];
  if (threadIdx.x == 0) tile[0] = 1;
  __syncthreads();
  x[threadIdx.x] = tile[threadIdx.x];
}

TEST_F(Faults, SharedMemoryThatNobodyWroteIsFound) {
  expect_fault({"loads 4 bytes at byte ", "tile", "no thread of the block has written"}, read_unwritten, 1,
               64, 0, leaked<float>(64));
}

__global__ void store_shared(float* out, int i) {
  __shared__ float tile[64];
  tile[i] = 1;
  __syncthreads();
  out[0] = tile[i];
}
__global__ void store_dynamic(int i) { reinterpret_cast<float*>(kernels::dynamic_shared_bytes)[i] = 1; }

// Two groups of copies, of which all but `left` have come when the second value is read.
__global__ void copy_ahead(float* x, int left) {
  __shared__ __align__(16) float tile[8];
  __pipeline_memcpy_async(tile, x, 16);
  __pipeline_commit();
  __pipeline_memcpy_async(tile + 4, x + 4, 16, 16);
  __pipeline_commit();
  __pipeline_wait_prior(1);
  x[0] = tile[1];
  __pipeline_wait_prior(static_cast<size_t>(left));
  x[1] = tile[5];
}

TEST_F(Faults, AMissingWaitForACopyIsFound) {
  {
    const DeviceArray<float> x(std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8});
    expect_success(start(copy_ahead, 1, 1, 0, nullptr, x.data(), 0));
    EXPECT_EQ(x.get(), (std::vector<float>{2, 0, 3, 4, 5, 6, 7, 8}));
  }
  EXPECT_EQ(counts("copy_ahead").loaded_bytes, 16);  // zeros are not read
  expect_fault({"copy_ahead", "which no thread of the block has written"}, copy_ahead, 1, 1, 0,
               leaked<float>(8), 1);
}

TEST_F(Faults, IndicesOutOfSharedMemoryAreFound) {
  expect_fault({"store_shared", "index 64 of an array, which is out of bounds at", "faults_test.cu"},
               store_shared, 1, 1, 0, leaked<float>(1), 64);
  expect_fault({"stores 4 bytes at byte 256 of shared memory of the launch of 256 bytes: out of bounds"},
               store_dynamic, 1, 1, 256, 64);
}

// Warps and barriers
// -------------------------------------------------------------------------------------------------

__global__ void half_warp_shuffles(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(kAll, 1, 1);
}
__global__ void two_shuffles(int* out) {
  int value;
  if (threadIdx.x < 16) {
    value = __shfl_sync(kAll, 1, 0);
  } else {
    value = __shfl_sync(kAll, 2, 0);
  }
  out[threadIdx.x] = value;
}
__global__ void shuffle_from_outside(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, 1, 20);
}
__global__ void shuffle_without_itself(int* out) { out[threadIdx.x] = __shfl_sync(0xffffu, 1, 0); }

TEST_F(Faults, DivergentWarpPrimitivesAreFound) {
  expect_fault({"has left the kernel"}, half_warp_shuffles, 1, 32, 0, leaked<int>(32));
  expect_fault({"divergent warp primitives", "__shfl_sync at "}, two_shuffles, 1, 32, 0, leaked<int>(32));
  expect_fault({"reads lane 20, which takes no part"}, shuffle_from_outside, 1, 32, 0, leaked<int>(32));
  expect_fault({"is not in its own mask 0xffff"}, shuffle_without_itself, 1, 32, 0, leaked<int>(32));
}

__global__ void some_leave() {
  if (threadIdx.x < 40) __syncthreads();
}
__global__ void two_barriers() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void barrier_or_warp() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else if (threadIdx.x < 48) {
    __syncwarp();
  }
}
__global__ void named_too_few() {
  if (threadIdx.x < 32) __barrier_sync_count(1, 64);
}
__global__ void named_no_warps() { __barrier_sync_count(1, 20); }

TEST_F(Faults, MismatchedBarriersAreFound) {
  expect_fault({"mismatched barriers", "waits in __syncthreads", "has left the kernel"}, some_leave, 1, 64,
               0);
  expect_fault({"mismatched barriers: __syncthreads at "}, two_barriers, 1, 64, 0);
  expect_fault({"barrier_or_warp", "__sync"}, barrier_or_warp, 1, 64, 0);
  expect_fault({"named_too_few", "has left the kernel"}, named_too_few, 1, 64, 0);
  expect_fault({"20 threads, must be warps"}, named_no_warps, 1, 64, 0);
}

__global__ void trap_in_block(unsigned block) {
  if (blockIdx.x == block && threadIdx.x == 3) __trap();
}

TEST_F(Faults, ATrapNamesItsPlace) {
  expect_fault({"trap_in_block, block (5, 0, 0), thread 3: __trap at", "faults_test.cu"}, trap_in_block, 8,
               32, 0, 5u);
}

// What remains of a fault
// --------------------------------------------------------------------------------------------

TEST_F(Faults, AKernelsErrorStaysAndDropsWhatWasQueued) {
  float* x = leaked<float>(100);
  cudaStream_t stream = nullptr;
  expect_success(cudaStreamCreate(&stream));
  ASSERT_EQ(start(store_at, 1, 1, 0, stream, x, 100), cudaSuccess);
  ASSERT_EQ(start(store_at, 1, 1, 0, stream, x, 3), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
  EXPECT_EQ(pending_work(), 0);
  EXPECT_EQ(counts("store_at").launches, 1);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaMalloc(&x, 4), cudaErrorLaunchFailure);
  reset(default_seed());
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(Faults, AnErrorInClosingMemoryHidesNoneOfTheKernel) {
  float* x = leaked<float>(100);
  DeviceMemory::instance().fail_next_close();
  ASSERT_EQ(start(store_at, 1, 1, 0, nullptr, x, 100), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_THAT(cudaGetErrorString(cudaErrorLaunchFailure),
              testing::HasSubstr("behind the end of an allocation"));
  reset(default_seed());
  // Alone it is an error, once.
  x = leaked<float>(100);
  DeviceMemory::instance().fail_next_close();
  ASSERT_EQ(start(store_at, 1, 1, 0, nullptr, x, 3), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  EXPECT_THAT(cudaGetErrorString(cudaErrorIllegalAddress), testing::HasSubstr("could not close"));
  reset(default_seed());
  x = leaked<float>(100);
  ASSERT_EQ(start(store_at, 1, 1, 0, nullptr, x, 3), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  expect_success(cudaFree(x));
}

// Threads that a fault left waiting do not go on in the next kernel.
__global__ void wait_then_store(float* to) {
  __syncthreads();
  to[threadIdx.x] = 7;
}

TEST_F(Faults, TheNextKernelStartsAnew) {
  expect_fault({"has left the kernel"}, some_leave, 1, 64, 0);
  const DeviceArray<float> x(64);
  expect_success(start(wait_then_store, 1, 64, 0, nullptr, x.data()));
  EXPECT_EQ(x.get(), std::vector<float>(64, 7.0f));
}

TEST_F(Faults, LaunchesOverTheHardwaresLimitsAreRefused) {
  const auto refused = [](dim3 grid, dim3 block, size_t shared) {
    EXPECT_EQ(start(store_at, grid, block, shared, nullptr, static_cast<float*>(nullptr), 0),
              cudaErrorInvalidConfiguration);
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  };
  refused(1, 1025, 0);
  refused(1, 0, 0);
  refused(1, dim3(1, 1, 65), 0);
  refused(0, 32, 0);
  refused(dim3(1, 65536), 32, 0);
  refused(1, 32, 48 * 1024 + 1);
  EXPECT_EQ(pending_work(), 0);
}

TEST_F(Faults, MoreSharedMemoryHasToBeAskedFor) {
  EXPECT_EQ(cudaFuncSetAttribute(store_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 * 1024),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  expect_success(
      cudaFuncSetAttribute(store_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 * 1024));
  EXPECT_EQ(start(store_dynamic, 1, 1, 100 * 1024 + 1, nullptr, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  expect_success(start(store_dynamic, 1, 1, 100 * 1024, nullptr, 25 * 1024 - 1));
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

}  // namespace
}  // namespace ziggurat::emulation
