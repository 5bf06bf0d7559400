// Dot products and weighted sums of rows that are read once, from memory. Written on gcc's vectors, which it
// lowers to the registers there are: sums of fixed shape, in registers, that its loop vectoriser does not
// find. Passed by reference: the calling convention of such a vector depends on the CPU.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include <ziggurat/core/bf16.h>

namespace ziggurat::kernels {

template <class A>
struct Lanes {
  static constexpr int64_t kCount = 64 / int64_t{sizeof(A)};
  typedef A Vector __attribute__((vector_size(64)));
};

inline void load_lanes(const float* from, Lanes<float>::Vector& to) { std::memcpy(&to, from, sizeof(to)); }
inline void load_lanes(const double* from, Lanes<double>::Vector& to) { std::memcpy(&to, from, sizeof(to)); }

// A bf16 is the upper half of its float.
inline void load_lanes(const bf16* from, Lanes<float>::Vector& to) {
  typedef uint16_t Halves __attribute__((vector_size(32)));
  typedef uint32_t Words __attribute__((vector_size(64)));
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  const Words words = __builtin_convertvector(halves, Words) << 16;
  std::memcpy(&to, &words, sizeof(to));
}

// The first n < kCount lanes; zeros in the others.
template <class T>
inline void load_some_lanes(const T* from, int64_t n, typename Lanes<Accum<T>>::Vector& to) {
  T padded[Lanes<Accum<T>>::kCount] = {};
  std::memcpy(padded, from, static_cast<size_t>(n) * sizeof(T));
  load_lanes(padded, to);
}

// In halves: a chain of additions would take as long as a row.
template <class A>
inline A sum_of_lanes(const typename Lanes<A>::Vector& v) {
  typedef A Half __attribute__((vector_size(32)));
  typedef A Quarter __attribute__((vector_size(16)));
  Half halves[2];
  std::memcpy(halves, &v, sizeof(v));
  halves[0] += halves[1];
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

// y[m * ldy] = w . x_m for M rows x_m, ldx elements apart. The order of a sum depends on n only.
template <int M, class T>
inline void dot_with_rows(const T* w, const Accum<T>* x, int64_t ldx, int64_t n, Accum<T>* y, int64_t ldy) {
  using A = Accum<T>;
  using V = typename Lanes<A>::Vector;
  constexpr int64_t kLanes = Lanes<A>::kCount;
  V sums[M][kChains] = {};
  const auto add = [&](int64_t j, int chain) __attribute__((always_inline)) {
    V weights;
    load_lanes(w + j, weights);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      V row;
      load_lanes(x + m * ldx + j, row);
      sums[m][chain] += weights * row;
    }
  };
  int64_t j = 0;
  for (; j + kChains * kLanes <= n; j += kChains * kLanes) {
#pragma GCC unroll 4
    for (int64_t line = 0; line < kChains * kLanes * int64_t{sizeof(T)}; line += 64) {
      __builtin_prefetch(reinterpret_cast<const char*>(w + j) + kAhead + line);
    }
#pragma GCC unroll 4
    for (int chain = 0; chain < kChains; ++chain) add(j + chain * kLanes, chain);
  }
  for (; j + kLanes <= n; j += kLanes) add(j, 0);
  if (j < n) {
    V weights;
    load_some_lanes(w + j, n - j, weights);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      V row;
      load_some_lanes(x + m * ldx + j, n - j, row);
      sums[m][0] += weights * row;
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
    y[m * ldy] = sum_of_lanes<A>((sums[m][0] + sums[m][1]) + (sums[m][2] + sums[m][3]));
  }
}

// Columns [column, column + width) of y_m [d] = sum over i of p_m[i] v_i, for M rows p_m, ldp elements apart;
// v [n, d]. The columns fill kVectors vectors, or width < one.
template <int M, int kVectors, class T>
inline void weighted_columns(const Accum<T>* p, int64_t ldp, const T* v, int64_t n, int64_t d, int64_t column,
                             int64_t width, Accum<T>* y) {
  using A = Accum<T>;
  using V = typename Lanes<A>::Vector;
  constexpr int64_t kLanes = Lanes<A>::kCount;
  const bool whole = width == kVectors * kLanes;
  V sums[M][kVectors] = {};
  for (int64_t i = 0; i < n; ++i) {
    const T* row = v + i * d + column;
    __builtin_prefetch(reinterpret_cast<const char*>(row) + kAhead);
#pragma GCC unroll 4
    for (int c = 0; c < kVectors; ++c) {
      V values;
      if (whole) {
        load_lanes(row + c * kLanes, values);
      } else {
        load_some_lanes(row, width, values);
      }
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) sums[m][c] += values * p[m * ldp + i];
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
    std::memcpy(y + m * d + column, sums[m], static_cast<size_t>(width) * sizeof(A));
  }
}

// y [M, d] = p [M, n] v [n, d], the rows of p ldp elements apart. Sums run over i in order.
template <int M, class T>
inline void weigh_rows(const Accum<T>* p, int64_t ldp, const T* v, int64_t n, int64_t d, Accum<T>* y) {
  constexpr int64_t kLanes = Lanes<Accum<T>>::kCount;
  int64_t at = 0;
  for (; at + 4 * kLanes <= d; at += 4 * kLanes) weighted_columns<M, 4>(p, ldp, v, n, d, at, 4 * kLanes, y);
  for (; at + kLanes <= d; at += kLanes) weighted_columns<M, 1>(p, ldp, v, n, d, at, kLanes, y);
  if (at < d) weighted_columns<M, 1>(p, ldp, v, n, d, at, d - at, y);
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
