// Storage types in device code: float and bf16 as floats, and 16 bytes of either by one instruction.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <ziggurat/core/bf16.h>

namespace ziggurat::kernels {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(bf16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}

// To nearest, ties to even, as bf16's own constructor does; by the GPU's instruction for it.
template <class T>
__device__ __forceinline__ T rounded(float value);
template <>
__device__ __forceinline__ float rounded<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ bf16 rounded<bf16>(float value) {
  bf16 result;
  result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
  return result;
}

__device__ __forceinline__ bool is_finite(double value) { return fabs(value) < __builtin_huge_val(); }

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// kLanes<T> values: what one thread loads or stores at once.
template <class T>
inline constexpr int kLanes = 16 / static_cast<int>(sizeof(T));

// N values of T, as floats: N is 1, or kLanes<T>, of which the address must be a multiple (fit_lanes tells).
template <class T, int N>
struct Values {
  float v[N];
};

__device__ __forceinline__ void unpack(uint4 raw, Values<float, 4>& to) {
  to.v[0] = __uint_as_float(raw.x);
  to.v[1] = __uint_as_float(raw.y);
  to.v[2] = __uint_as_float(raw.z);
  to.v[3] = __uint_as_float(raw.w);
}
__device__ __forceinline__ void unpack(uint4 raw, Values<bf16, 8>& to) {
  const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to.v[2 * i] = __uint_as_float(words[i] << 16);
    to.v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
__device__ __forceinline__ uint4 pack(const Values<float, 4>& from) {
  return make_uint4(__float_as_uint(from.v[0]), __float_as_uint(from.v[1]), __float_as_uint(from.v[2]),
                    __float_as_uint(from.v[3]));
}
__device__ __forceinline__ uint4 pack(const Values<bf16, 8>& from) {
  unsigned words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    words[i] = static_cast<unsigned>(rounded<bf16>(from.v[2 * i]).bits) |
               static_cast<unsigned>(rounded<bf16>(from.v[2 * i + 1]).bits) << 16;
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

template <int N, class T>
__device__ __forceinline__ Values<T, N> load(const T* from) {
  Values<T, N> values;
  if constexpr (N == 1) {
    values.v[0] = to_float(*from);
  } else {
    unpack(*reinterpret_cast<const uint4*>(from), values);
  }
  return values;
}

template <class T, int N>
__device__ __forceinline__ void store(T* to, const Values<T, N>& values) {
  if constexpr (N == 1) {
    *to = rounded<T>(values.v[0]);
  } else {
    *reinterpret_cast<uint4*>(to) = pack(values);
  }
}

// to = values, or +=. Reads what is there only now: it may be what this thread has just stored.
template <class T, int N>
__device__ __forceinline__ void write(T* to, bool accumulate, Values<T, N> values) {
  if (accumulate) {
    const Values<T, N> earlier = load<N>(to);
#pragma unroll
    for (int i = 0; i < N; ++i) values.v[i] += earlier.v[i];
  }
  store(to, values);
}

// N floats at an address of which 16 bytes can be loaded if N > 1.
template <int N>
__device__ __forceinline__ void load_floats(const float* from, float (&to)[N]) {
  if constexpr (N == 1) {
    to[0] = *from;
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const Values<float, 4> part = load<4>(from + i);
#pragma unroll
      for (int k = 0; k < 4; ++k) to[i + k] = part.v[k];
    }
  }
}
template <int N>
__device__ __forceinline__ void store_floats(float* to, const float (&from)[N]) {
  if constexpr (N == 1) {
    *to = from[0];
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4)
      store(to + i, Values<float, 4>{{from[i], from[i + 1], from[i + 2], from[i + 3]}});
  }
}

// The same, rounded: four by 8 bytes, where the address is a multiple of that.
template <int N>
__device__ __forceinline__ void store_rounded(bf16* to, const Values<float, N>& values) {
  if constexpr (N == 1) {
    *to = rounded<bf16>(values.v[0]);
  } else {
    const auto pair = [&](int i) {
      return static_cast<unsigned>(rounded<bf16>(values.v[i]).bits) |
             static_cast<unsigned>(rounded<bf16>(values.v[i + 1]).bits) << 16;
    };
    static_assert(N == 4);
    *reinterpret_cast<uint2*>(to) = make_uint2(pair(0), pair(2));
  }
}
inline bool fit_rounded(const bf16* to) { return reinterpret_cast<uintptr_t>(to) % 8 == 0; }

// Whether rows of n values at these addresses can be read by 16 bytes. Null stands for an address that is not
// used.
template <class... T>
bool fit_lanes(int64_t n, const T*... pointers) {
  const auto fits = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  return ((n % kLanes<T> == 0 && fits(pointers)) && ...);
}

}  // namespace ziggurat::kernels
