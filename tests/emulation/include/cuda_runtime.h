// The CUDA language and the part of its runtime that kernels/cuda uses, on the host: the same .cu files
// compile as C++ against this header and run on the emulated device. What is missing here is added when a
// kernel needs it. The built-in functions behave as CUDA's programming guide says for compute capability 8.0
// and later; where that leaves a use undefined, the emulator reports it.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tests/emulation/device_language.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__
// Threads of a block are fibers of one thread of the host.
#define __shared__ thread_local

// Vector types. They are copied as one vector of gcc's: one load or store of 16 bytes, as on a GPU.
#define ZIGGURAT_VECTOR(name, type, count, ...)                    \
  union alignas(count * sizeof(type)) name {                       \
    struct {                                                       \
      type __VA_ARGS__;                                            \
    };                                                             \
    type whole __attribute__((vector_size(count * sizeof(type)))); \
    name() = default;                                              \
    name(const name& other) : whole(other.whole) {}                \
    name& operator=(const name& other) {                           \
      whole = other.whole;                                         \
      return *this;                                                \
    }                                                              \
  };
#define ZIGGURAT_VECTOR2(name, type)        \
  ZIGGURAT_VECTOR(name, type, 2, x, y)      \
  inline name make_##name(type x, type y) { \
    name v;                                 \
    v.x = x;                                \
    v.y = y;                                \
    return v;                               \
  }
#define ZIGGURAT_VECTOR4(name, type)                        \
  ZIGGURAT_VECTOR(name, type, 4, x, y, z, w)                \
  inline name make_##name(type x, type y, type z, type w) { \
    name v;                                                 \
    v.x = x;                                                \
    v.y = y;                                                \
    v.z = z;                                                \
    v.w = w;                                                \
    return v;                                               \
  }
ZIGGURAT_VECTOR2(float2, float)
ZIGGURAT_VECTOR2(int2, int)
ZIGGURAT_VECTOR2(uint2, unsigned)
ZIGGURAT_VECTOR2(double2, double)
ZIGGURAT_VECTOR4(float4, float)
ZIGGURAT_VECTOR4(int4, int)
ZIGGURAT_VECTOR4(uint4, unsigned)
#undef ZIGGURAT_VECTOR2
#undef ZIGGURAT_VECTOR4
#undef ZIGGURAT_VECTOR

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace ziggurat::emulation {
template <Index (*Of)(), unsigned Index::*Which>
struct Component {
  operator unsigned() const { return Of().*Which; }
};
template <Index (*Of)()>
struct Components {
  Component<Of, &Index::x> x;
  Component<Of, &Index::y> y;
  Component<Of, &Index::z> z;
};
}  // namespace ziggurat::emulation
inline constexpr ziggurat::emulation::Components<ziggurat::emulation::thread_index> threadIdx{};
inline constexpr ziggurat::emulation::Components<ziggurat::emulation::block_index> blockIdx{};
inline constexpr ziggurat::emulation::Components<ziggurat::emulation::block_size> blockDim{};
inline constexpr ziggurat::emulation::Components<ziggurat::emulation::grid_size> gridDim{};
inline constexpr int warpSize = 32;

// Barriers
// -----------------------------------------------------------------------------------------------------------

// The place of the program that calls a built-in function.
#define ZIGGURAT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(ZIGGURAT_SITE) {
  ziggurat::emulation::block_barrier(0, 0, false, "__syncthreads", {file, line});
}
inline int __syncthreads_count(int predicate, ZIGGURAT_SITE) {
  return ziggurat::emulation::block_barrier(0, 0, predicate != 0, "__syncthreads_count", {file, line});
}
inline int __syncthreads_or(int predicate, ZIGGURAT_SITE) {
  return ziggurat::emulation::block_barrier(0, 0, predicate != 0, "__syncthreads_or", {file, line}) > 0;
}
inline int __syncthreads_and(int predicate, ZIGGURAT_SITE) {
  return ziggurat::emulation::block_barrier(0, 0, predicate == 0, "__syncthreads_and", {file, line}) == 0;
}
inline void __barrier_sync(unsigned id, ZIGGURAT_SITE) {
  ziggurat::emulation::block_barrier(static_cast<int>(id), 0, false, "__barrier_sync", {file, line});
}
inline void __barrier_sync_count(unsigned id, unsigned threads, ZIGGURAT_SITE) {
  ziggurat::emulation::block_barrier(static_cast<int>(id), static_cast<int>(threads), false,
                                     "__barrier_sync_count", {file, line});
}
inline void __syncwarp(unsigned mask = 0xffffffffu, ZIGGURAT_SITE) {
  ziggurat::emulation::warp_exchange(mask, nullptr, 0, 0, "__syncwarp", {file, line});
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

// Warps
// --------------------------------------------------------------------------------------------------------------

namespace ziggurat::emulation {

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

uint64_t shuffle(const uint64_t* values, uint32_t mask, int lane, uint64_t source);
uint64_t ballot(const uint64_t* values, uint32_t mask, int lane, uint64_t);
uint64_t match_any(const uint64_t* values, uint32_t mask, int lane, uint64_t);

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a + b);
  }
};
struct Least {
  template <class T>
  T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};
struct Greatest {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct And {
  unsigned operator()(unsigned a, unsigned b) const { return a & b; }
};
struct Or {
  unsigned operator()(unsigned a, unsigned b) const { return a | b; }
};
struct Xor {
  unsigned operator()(unsigned a, unsigned b) const { return a ^ b; }
};
template <class T, class F>
uint64_t reduce(const uint64_t* values, uint32_t mask, int, uint64_t) {
  const int first = std::countr_zero(mask);
  T result = from_bits<T>(values[first]);
  for (int lane = first + 1; lane < 32; ++lane) {
    if (mask >> lane & 1u) result = F()(result, from_bits<T>(values[lane]));
  }
  return to_bits(result);
}

template <class T>
T shuffle_from(unsigned mask, T value, int source, const char* name, Site site) {
  return from_bits<T>(
      warp_exchange(mask, shuffle, to_bits(value), static_cast<uint64_t>(source), name, site));
}
inline int lane() { return thread_rank() % 32; }

}  // namespace ziggurat::emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, ZIGGURAT_SITE) {
  const int lane = ziggurat::emulation::lane(), first = lane / width * width;
  return ziggurat::emulation::shuffle_from(mask, value, first + (source & (width - 1)), "__shfl_sync",
                                           {file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, ZIGGURAT_SITE) {
  const int lane = ziggurat::emulation::lane(), first = lane / width * width;
  const int source = lane - static_cast<int>(delta);
  return ziggurat::emulation::shuffle_from(mask, value, source < first ? lane : source, "__shfl_up_sync",
                                           {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, ZIGGURAT_SITE) {
  const int lane = ziggurat::emulation::lane(), end = lane / width * width + width;
  const int source = lane + static_cast<int>(delta);
  return ziggurat::emulation::shuffle_from(mask, value, source >= end ? lane : source, "__shfl_down_sync",
                                           {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, ZIGGURAT_SITE) {
  const int lane = ziggurat::emulation::lane(), end = lane / width * width + width;
  const int source = lane ^ bits;
  return ziggurat::emulation::shuffle_from(mask, value, source >= end ? lane : source, "__shfl_xor_sync",
                                           {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, ZIGGURAT_SITE) {
  using namespace ziggurat::emulation;
  return static_cast<unsigned>(
      warp_exchange(mask, ballot, predicate != 0 ? 1 : 0, 0, "__ballot_sync", Site{file, line}));
}
inline int __any_sync(unsigned mask, int predicate, ZIGGURAT_SITE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, ZIGGURAT_SITE) {
  return __ballot_sync(mask, predicate == 0, file, line) == 0;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, ZIGGURAT_SITE) {
  using namespace ziggurat::emulation;
  return static_cast<unsigned>(
      warp_exchange(mask, match_any, to_bits(value), 0, "__match_any_sync", Site{file, line}));
}
#define ZIGGURAT_REDUCE(name, type, function)                                                     \
  inline type name(unsigned mask, type value, ZIGGURAT_SITE) {                                    \
    using namespace ziggurat::emulation;                                                          \
    return from_bits<type>(                                                                       \
        warp_exchange(mask, reduce<type, function>, to_bits(value), 0, #name, Site{file, line})); \
  }
ZIGGURAT_REDUCE(__reduce_add_sync, int, Add)
ZIGGURAT_REDUCE(__reduce_add_sync, unsigned, Add)
ZIGGURAT_REDUCE(__reduce_min_sync, int, Least)
ZIGGURAT_REDUCE(__reduce_min_sync, unsigned, Least)
ZIGGURAT_REDUCE(__reduce_max_sync, int, Greatest)
ZIGGURAT_REDUCE(__reduce_max_sync, unsigned, Greatest)
ZIGGURAT_REDUCE(__reduce_and_sync, unsigned, And)
ZIGGURAT_REDUCE(__reduce_or_sync, unsigned, Or)
ZIGGURAT_REDUCE(__reduce_xor_sync, unsigned, Xor)
#undef ZIGGURAT_REDUCE

// Atomics
// ------------------------------------------------------------------------------------------------------------

namespace ziggurat::emulation {
template <class T, class F>
[[gnu::no_sanitize("thread")]] T atomic(T* address, const F& change) {
  atomic_access(address, sizeof(T));
  const T old = *address;
  *address = change(old);
  return old;
}
}  // namespace ziggurat::emulation

#define ZIGGURAT_ATOMIC(name, type, expression)                                                 \
  inline type name(type* address, type value) {                                                 \
    return ziggurat::emulation::atomic(                                                         \
        address, [=] [[gnu::no_sanitize("thread")]] (type old) -> type { return expression; }); \
  }
#define ZIGGURAT_ATOMIC_INTEGERS(name, expression) \
  ZIGGURAT_ATOMIC(name, int, expression)           \
  ZIGGURAT_ATOMIC(name, unsigned, expression)      \
  ZIGGURAT_ATOMIC(name, unsigned long long, expression)
ZIGGURAT_ATOMIC_INTEGERS(atomicAdd, old + value)
ZIGGURAT_ATOMIC(atomicAdd, float, old + value)
ZIGGURAT_ATOMIC(atomicAdd, double, old + value)
ZIGGURAT_ATOMIC_INTEGERS(atomicMin, value < old ? value : old)
ZIGGURAT_ATOMIC_INTEGERS(atomicMax, value > old ? value : old)
ZIGGURAT_ATOMIC_INTEGERS(atomicAnd, old& value)
ZIGGURAT_ATOMIC_INTEGERS(atomicOr, old | value)
ZIGGURAT_ATOMIC_INTEGERS(atomicXor, old ^ value)
ZIGGURAT_ATOMIC_INTEGERS(atomicExch, value)
ZIGGURAT_ATOMIC(atomicExch, float, value)
ZIGGURAT_ATOMIC(atomicSub, int, old - value)
ZIGGURAT_ATOMIC(atomicSub, unsigned, old - value)
#undef ZIGGURAT_ATOMIC_INTEGERS
#undef ZIGGURAT_ATOMIC
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return ziggurat::emulation::atomic(address, [=](T old) { return old == expected ? value : old; });
}

// Numbers
// ------------------------------------------------------------------------------------------------------------

using std::max;
using std::min;
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline void sincospi(double x, double* sine, double* cosine) {
  const double within = 3.14159265358979323846 * (x - 2 * std::nearbyint(x / 2));  // (-1, 1] half turns
  *sine = std::sin(within);
  *cosine = std::cos(within);
}
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) {
  unsigned result = 0;
  for (int i = 0; i < 32; ++i) result |= (x >> i & 1u) << (31 - i);
  return result;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((uint64_t{a} * b) >> 32); }
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>(((uint64_t{high} << 32) | low) >> (shift & 31));
}
#define __ldg(address) (*(address))
#define __ldcs(address) (*(address))
#define __ldcg(address) (*(address))
#define __stcs(address, value) (*(address) = (value))
#define __stcg(address, value) (*(address) = (value))
inline void __trap(ZIGGURAT_SITE) { ziggurat::emulation::device_failure("__trap", {file, line}); }

// The runtime
// --------------------------------------------------------------------------------------------------------

enum cudaError {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorStreamCaptureMerge = 902,
  cudaErrorStreamCaptureUnmatched = 903,
  cudaErrorStreamCaptureUnjoined = 904,
  cudaErrorStreamCaptureIsolation = 905,
  cudaErrorCapturedEvent = 907,
  cudaErrorStreamCaptureWrongThread = 908,
};
using cudaError_t = cudaError;
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
inline constexpr unsigned cudaStreamDefault = 0, cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventDefault = 0, cudaEventDisableTiming = 2;
inline constexpr unsigned cudaHostAllocDefault = 0;

const char* cudaGetErrorName(cudaError_t error);
// Says too what a kernel did, where it was one that failed.
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);

cudaError_t cudaMalloc(void** pointer, size_t bytes);
template <class T>
cudaError_t cudaMalloc(T** pointer, size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(pointer), bytes);
}
cudaError_t cudaFree(void* pointer);
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream);
cudaError_t cudaMallocHost(void** pointer, size_t bytes);
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* pointer);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void* to, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream = nullptr);

cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data);

cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end);

enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed
};
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

struct cudaLaunchAttribute {};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

namespace ziggurat::emulation {
cudaError_t enqueue_launch(const cudaLaunchConfig_t& config, const void* kernel,
                           void (*call)(const void* kernel, const void* arguments),
                           std::shared_ptr<const void> arguments, size_t arguments_bytes);
cudaError_t set_max_dynamic_shared(const void* kernel, int bytes);
}  // namespace ziggurat::emulation

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  using Copies = std::tuple<Parameters...>;
  const auto call = [](const void* function, const void* copies) {
    std::apply(reinterpret_cast<void (*)(Parameters...)>(reinterpret_cast<uintptr_t>(function)),
               *static_cast<const Copies*>(copies));
  };
  return ziggurat::emulation::enqueue_launch(
      *config, reinterpret_cast<const void*>(kernel), call,
      std::make_shared<const Copies>(std::forward<Arguments>(arguments)...), sizeof(Copies));
}

template <class F>
cudaError_t cudaFuncSetAttribute(F* kernel, cudaFuncAttribute, int value) {
  return ziggurat::emulation::set_max_dynamic_shared(reinterpret_cast<const void*>(kernel), value);
}
