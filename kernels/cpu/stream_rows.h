// Dot products and weighted sums of rows that are read once, from memory. Written on gcc's vectors, of the
// size of the registers that there are (a larger one goes by way of the stack): sums of fixed shape, in
// registers, that its loop vectoriser does not find. Passed by reference: the calling convention of such a
// vector depends on the CPU.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include <immintrin.h>

#include <ziggurat/build_config.h>
#include <ziggurat/core/bf16.h>

namespace ziggurat::kernels {

template <class A>
struct Lanes {
  static constexpr int64_t kCount = kVectorBytes / int64_t{sizeof(A)};
  typedef A Vector __attribute__((vector_size(kVectorBytes)));
};

inline void load_lanes(const float* from, Lanes<float>::Vector& to) { std::memcpy(&to, from, sizeof(to)); }
inline void load_lanes(const double* from, Lanes<double>::Vector& to) { std::memcpy(&to, from, sizeof(to)); }

// A bf16 is the upper half of its float.
inline void load_lanes(const bf16* from, Lanes<float>::Vector& to) {
  typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));
  typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  const Words words = __builtin_convertvector(halves, Words) << 16;
  std::memcpy(&to, &words, sizeof(to));
}

// Two vectors of consecutive elements: for f32 and f64 one after the other; for bf16 those at even places and
// those at odd ones, which are the lower and the upper halves of words, and so cost a shift and a mask.
template <class T>
inline void load_pair(const T* from, typename Lanes<Accum<T>>::Vector& first,
                      typename Lanes<Accum<T>>::Vector& second) {
  if constexpr (std::is_same_v<T, bf16>) {
    typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
    Words words;
    std::memcpy(&words, from, sizeof(words));
    const Words even = words << 16, odd = words & 0xffff0000u;
    std::memcpy(&first, &even, sizeof(first));
    std::memcpy(&second, &odd, sizeof(second));
  } else {
    load_lanes(from, first);
    load_lanes(from + Lanes<T>::kCount, second);
  }
}

// Where element i of n lies when its row meets rows of T as load_pair gives them.
template <class T>
inline int64_t place_in_pairs(int64_t i, int64_t n) {
  constexpr int64_t kPair = 2 * Lanes<Accum<T>>::kCount;
  if (!std::is_same_v<T, bf16> || i >= n / kPair * kPair) return i;
  return i / kPair * kPair + i % 2 * (kPair / 2) + i % kPair / 2;
}

// to [n] = x [n] in that order.
template <class T, class X>
inline void arrange_in_pairs(const X* x, int64_t n, Accum<T>* to) {
  for (int64_t i = 0; i < n; ++i) to[place_in_pairs<T>(i, n)] = Accum<T>(x[i]);
}

// The first n <= kCount lanes; zeros in the others.
template <class T>
inline void load_some_lanes(const T* from, int64_t n, typename Lanes<Accum<T>>::Vector& to) {
  if constexpr (std::is_same_v<T, float> &&
                kVectorBytes == 64) {  // a copy of unknown size takes 30 times as long
    const __m512 lanes = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), from);
    std::memcpy(&to, &lanes, sizeof(to));
  } else {
    T padded[Lanes<Accum<T>>::kCount] = {};
    std::memcpy(padded, from, static_cast<size_t>(n) * sizeof(T));
    load_lanes(padded, to);
  }
}

// In halves: a chain of additions would take as long as a row.
template <class A>
inline A sum_of_lanes(const typename Lanes<A>::Vector& v) {
  typedef A Half __attribute__((vector_size(32)));
  typedef A Quarter __attribute__((vector_size(16)));
  Half halves[kVectorBytes / 32];
  std::memcpy(halves, &v, sizeof(v));
  if constexpr (kVectorBytes == 64) halves[0] += halves[1];
  Quarter quarters[2];
  std::memcpy(quarters, halves, sizeof(quarters));
  quarters[0] += quarters[1];
  if constexpr (sizeof(A) == 8) {
    return quarters[0][0] + quarters[0][1];
  } else {
    return (quarters[0][0] + quarters[0][1]) + (quarters[0][2] + quarters[0][3]);
  }
}

// Independent sums per dot product: enough to hide the latency of a fused multiply-add (4 cycles).
constexpr int kChains = 4;

// How far ahead of its use a row is fetched. One pass over a megabyte is many short rows, at whose ends the
// hardware's own prefetching starts anew; 2 KiB is some 200 ns at 10 GB/s, about the latency of memory.
constexpr int64_t kAhead = 2048;  // bytes

// y[m * ldy] = w . x_m for M rows x_m, arranged in pairs, ldx elements apart. The order of a sum depends on n
// only.
template <int M, class T>
inline void dot_with_rows(const T* w, const Accum<T>* x, int64_t ldx, int64_t n, Accum<T>* y, int64_t ldy) {
  using A = Accum<T>;
  using V = typename Lanes<A>::Vector;
  constexpr int64_t kLanes = Lanes<A>::kCount;
  V sums[M][kChains] = {};
  const auto add = [&](int64_t j, int chain) __attribute__((always_inline)) {  // 2 kLanes elements
    V first, second;
    load_pair(w + j, first, second);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      V row;
      load_lanes(x + m * ldx + j, row);
      sums[m][chain] += first * row;
      load_lanes(x + m * ldx + j + kLanes, row);
      sums[m][chain + 1] += second * row;
    }
  };
  int64_t j = 0;
  for (; j + kChains * kLanes <= n; j += kChains * kLanes) {
#pragma GCC unroll 4
    for (int64_t line = 0; line < kChains * kLanes * int64_t{sizeof(T)}; line += 64) {
      __builtin_prefetch(reinterpret_cast<const char*>(w + j) + kAhead + line);
    }
#pragma GCC unroll 4
    for (int chain = 0; chain < kChains; chain += 2) add(j + chain * kLanes, chain);
  }
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) add(j, 0);
  for (; j < n; j += kLanes) {
    const int64_t rest = std::min(kLanes, n - j);
    V weights;
    load_some_lanes(w + j, rest, weights);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      V row;
      load_some_lanes(x + m * ldx + j, rest, row);
      sums[m][0] += weights * row;
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
    y[m * ldy] = sum_of_lanes<A>((sums[m][0] + sums[m][1]) + (sums[m][2] + sums[m][3]));
  }
}

// Rows that lie one after another.
template <class T>
struct Rows {
  const T* first;
  int64_t count;
};

// Columns [column, column + width) of y_m [d] = sum over i of p_m[i] v_i, for M rows p_m, ldp elements apart;
// v_i [d] are the rows of all `pieces`. The columns fill kVectors vectors, an even number, or at most one.
template <int M, int kVectors, class T>
inline void weighted_columns(const Accum<T>* p, int64_t ldp, std::span<const Rows<T>> pieces, int64_t d,
                             int64_t column, int64_t width, Accum<T>* y) {
  using A = Accum<T>;
  using V = typename Lanes<A>::Vector;
  constexpr int64_t kLanes = Lanes<A>::kCount;
  V sums[M][kVectors] = {};
  for (const Rows<T>& piece : pieces) {
    for (int64_t i = 0; i < piece.count; ++i) {
      const T* row = piece.first + i * d + column;
      __builtin_prefetch(reinterpret_cast<const char*>(row) + kAhead);
      V values[kVectors];
      if constexpr (kVectors == 1) {
        load_some_lanes(row, width, values[0]);
      } else {
#pragma GCC unroll 8
        for (int c = 0; c < kVectors; c += 2) load_pair(row + c * kLanes, values[c], values[c + 1]);
      }
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) sums[m][c] += values[c] * p[m * ldp + i];
      }
    }
    p += piece.count;
  }
  for (int m = 0; m < M; ++m) {
    A lanes[kVectors * kLanes];
    std::memcpy(lanes, sums[m], sizeof(lanes));
    for (int64_t i = 0; i < width; ++i) {
      y[m * d + column + i] = lanes[place_in_pairs<T>(i, kVectors * kLanes)];
    }
  }
}

// y [M, d] = p [M, n] v [n, d], the rows of p ldp elements apart, those of v in pieces. Sums run over i in
// order, and take no more than half of the registers, of which AVX2 has 16.
template <int M, class T>
inline void weigh_rows(const Accum<T>* p, int64_t ldp, std::span<const Rows<T>> v, int64_t d, Accum<T>* y) {
  constexpr int64_t kLanes = Lanes<Accum<T>>::kCount;
  constexpr int kVectors = kVectorBytes == 64 ? 4 : 8 / M;
  int64_t at = 0;
  for (; at + kVectors * kLanes <= d; at += kVectors * kLanes) {
    weighted_columns<M, kVectors, T>(p, ldp, v, d, at, kVectors * kLanes, y);
  }
  for (; at < d; at += kLanes) weighted_columns<M, 1, T>(p, ldp, v, d, at, std::min(kLanes, d - at), y);
}

// f(first, std::integral_constant<int, M>) over [0, n) in tiles of 4, then 2, then 1 rows.
template <class F>
inline void for_row_tiles(int64_t n, const F& f) {
  int64_t first = 0;
  for (; first + 4 <= n; first += 4) f(first, std::integral_constant<int, 4>{});
  if (first + 2 <= n) f(first, std::integral_constant<int, 2>{}), first += 2;
  if (first < n) f(first, std::integral_constant<int, 1>{});
}

}  // namespace ziggurat::kernels
