// Products of a few rows with one panel of a weight (kernels/panel_linear.h), of values or of numbers of 8
// bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <immintrin.h>
#include <kernels/cpu/stream_rows.h>

#include <ziggurat/kernels/panel_linear.h>

namespace ziggurat::kernels {

// Rows of x that share a read of a panel: with its vectors they fill the registers.
template <class T>
constexpr int kTileRows = sizeof(T) == 8 ? 3 : 6;

// What products of bf16 take: x as it is where the CPU multiplies pairs, else in f32.
template <class T>
using Operand = std::conditional_t<std::is_same_v<T, bf16> && kHasBf16Products, bf16, Accum<T>>;

template <class A>
using Vector = typename Lanes<A>::Vector;

// Pairs of bf16, one a lane: what a product of pairs takes.
struct Pairs {
  __m512i words;
};

// sums += both products of the pairs of each lane.
template <class V>
inline void add_pairs(const uint32_t x, const Pairs& weights, V& sums) {
  if constexpr (kHasBf16Products) {
    __m512 sum;
    std::memcpy(&sum, &sums, sizeof(sum));
    sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(x)), (__m512bh)weights.words);
    std::memcpy(&sums, &sum, sizeof(sum));
  }
}

// A whole panel as its products read it. `k`: a column, of pairs the first of two; `v`: a vector of its rows.
template <class T>
struct ValuesOfPanel {
  static constexpr int64_t kLanes = Lanes<Accum<T>>::kCount;
  static constexpr int64_t kColumnBytes = kPanelRows * int64_t{sizeof(T)};
  const T* w;

  void load_pairs(int64_t k, int64_t v, Pairs& to) const {
    std::memcpy(&to.words, w + k * kPanelRows + v * 2 * kLanes, sizeof(to.words));
  }
  void load_columns(int64_t k, int64_t v, Vector<Accum<T>>& even, Vector<Accum<T>>& odd) const {
    load_pair(w + k * kPanelRows + v * 2 * kLanes, even, odd);
  }
  void load_column(int64_t k, int64_t v, Vector<Accum<T>>& to) const {
    load_lanes(w + k * kPanelRows + v * kLanes, to);
  }
};

// The same of numbers of 8 bits, without their scales. They are exact in bf16.
template <class T>
struct NumbersOfPanel {
  static constexpr int64_t kLanes = Lanes<float>::kCount;
  static constexpr int64_t kColumnBytes = kPanelRows;
  const int8_t* w;

  void load_column(int64_t k, int64_t v, Vector<float>& to) const {
    typedef int32_t Words __attribute__((vector_size(kVectorBytes)));
    __m128i bytes{};
    std::memcpy(&bytes, w + k * kPanelRows + v * kLanes, kLanes);
    Words words;
    if constexpr (kVectorBytes == 64) {  // all lanes: without a mask gcc 12 warns of its own header
      const __m512i wide = _mm512_maskz_cvtepi8_epi32(0xffff, bytes);
      std::memcpy(&words, &wide, sizeof(words));
    } else {
      const __m256i wide = _mm256_cvtepi8_epi32(bytes);
      std::memcpy(&words, &wide, sizeof(words));
    }
    to = __builtin_convertvector(words, Vector<float>);
  }
  void load_columns(int64_t k, int64_t v, Vector<float>& even, Vector<float>& odd) const {
    load_column(k, v, even);
    load_column(k + 1, v, odd);
  }
  void load_pairs(int64_t k, int64_t v, Pairs& to) const {  // the upper halves of floats
    if constexpr (kHasBf16Products) {
      typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
      Vector<float> even, odd;
      load_columns(k, v, even, odd);
      Words low, high;
      std::memcpy(&low, &even, sizeof(low));
      std::memcpy(&high, &odd, sizeof(high));
      const Words both = low >> 16 | high;
      std::memcpy(&to.words, &both, sizeof(both));
    }
  }
};

// sums [M][kVectors] = x_m . rows of a whole panel, for M rows x_m, ldx elements apart.
template <int M, class T, class Panel>
[[gnu::noinline]] void whole_panel(const Panel& panel, const Operand<T>* x, int64_t ldx, int64_t in,
                                   Accum<T>* y) {
  using A = Accum<T>;
  using V = Vector<A>;
  constexpr int64_t kLanes = Lanes<A>::kCount;
  constexpr int kVectors = static_cast<int>(kPanelRows / kLanes);
  V sums[M][kVectors] = {};
  const auto fetch = [&](int64_t k, int64_t columns) __attribute__((always_inline)) {
    if (M > 2) return;  // their products take longer than the read
    const char* ahead = reinterpret_cast<const char*>(panel.w) + k * Panel::kColumnBytes + kAhead;
#pragma GCC unroll 8
    for (int64_t line = 0; line < columns * Panel::kColumnBytes; line += 64) {
      __builtin_prefetch(ahead + line);
    }
  };
  int64_t k = 0;
  if constexpr (std::is_same_v<T, bf16>) {
    for (; k + 2 <= in; k += 2) {
      fetch(k, 2);
      if constexpr (kHasBf16Products) {
        Pairs weights[kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) panel.load_pairs(k, v, weights[v]);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
          uint32_t pair;
          std::memcpy(&pair, x + m * ldx + k, sizeof(pair));
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) add_pairs(pair, weights[v], sums[m][v]);
        }
      } else {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          V even, odd;
          panel.load_columns(k, v, even, odd);
#pragma GCC unroll 8
          for (int m = 0; m < M; ++m) {
            sums[m][v] += even * x[m * ldx + k];
            sums[m][v] += odd * x[m * ldx + k + 1];
          }
        }
      }
    }
  }
  for (; k < in; ++k) {
    fetch(k, 1);
    V weights[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) panel.load_column(k, v, weights[v]);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const A factor = A(x[m * ldx + k]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[m][v] += weights[v] * factor;
    }
  }
  std::memcpy(y, sums, sizeof(sums));
}

// The same of the last panel of a weight, which has fewer rows; y [M][kPanelRows].
template <int M, class T>
[[gnu::noinline]] void part_of_panel(const T* w, int64_t width, const Operand<T>* x, int64_t ldx, int64_t in,
                                     Accum<T>* y) {
  using A = Accum<T>;
  using V = Vector<A>;
  constexpr int64_t kLanes = Lanes<A>::kCount;
  for (int64_t first = 0; first < width; first += kLanes) {
    const int64_t lanes = std::min(kLanes, width - first);
    V sums[M] = {};
    int64_t k = 0;
    if constexpr (std::is_same_v<T, bf16>) {
      for (; k + 2 <= in; k += 2) {
        bf16 pairs[2 * kLanes] = {};
        std::memcpy(pairs, w + k * width + 2 * first, static_cast<size_t>(2 * lanes) * sizeof(T));
        for (int m = 0; m < M; ++m) {
          if constexpr (kHasBf16Products) {
            uint32_t pair;
            std::memcpy(&pair, x + m * ldx + k, sizeof(pair));
            Pairs words;
            std::memcpy(&words, pairs, sizeof(words));
            add_pairs(pair, words, sums[m]);
          } else {
            V even, odd;
            load_pair(pairs, even, odd);
            sums[m] += even * x[m * ldx + k];
            sums[m] += odd * x[m * ldx + k + 1];
          }
        }
      }
    }
    for (; k < in; ++k) {
      V weights;
      load_some_lanes(w + k * width + first, lanes, weights);
      for (int m = 0; m < M; ++m) sums[m] += weights * A(x[m * ldx + k]);
    }
    for (int m = 0; m < M; ++m) {
      A values[kLanes];
      std::memcpy(values, &sums[m], sizeof(values));
      std::copy_n(values, lanes, y + m * kPanelRows + first);
    }
  }
}

// `numbers`, or null: `w`.
template <int M, class T>
void panel(const T* w, const int8_t* numbers, int64_t width, const Operand<T>* x, int64_t ldx, int64_t in,
           Accum<T>* y) {
  if constexpr (!std::is_same_v<T, double>) {
    if (numbers != nullptr) return whole_panel<M, T>(NumbersOfPanel<T>{numbers}, x, ldx, in, y);
  }
  if (width == kPanelRows) {
    whole_panel<M, T>(ValuesOfPanel<T>{w}, x, ldx, in, y);
  } else {
    part_of_panel<M, T>(w, width, x, ldx, in, y);
  }
}

// Whether many rows read numbers faster from a widened copy, as products of pairs do, and how many.
template <class T>
constexpr bool kWidensPanels = std::is_same_v<T, bf16>&& kHasBf16Products;
constexpr int64_t kWideningPays = 64;

// values = the panel of numbers as one of T: exactly.
template <class T>
void widen_panel(const int8_t* numbers, int64_t width, int64_t in, T* values) {
  constexpr int64_t kLanes = Lanes<float>::kCount;
  const NumbersOfPanel<T> panel{numbers};
  int64_t k = 0;
  if constexpr (kWidensPanels<T>) {
    for (; width == kPanelRows && k + 2 <= in; k += 2) {
      for (int64_t v = 0; v < kPanelRows / kLanes; ++v) {
        Pairs pairs;
        panel.load_pairs(k, v, pairs);
        _mm512_storeu_si512(values + k * kPanelRows + v * 2 * kLanes, pairs.words);
      }
    }
  }
  for (; k < in; ++k) {
    for (int64_t r = 0; r < width; ++r) {
      values[place_in_panels<T>(r, k, width, in)] = T(static_cast<float>(numbers[k * width + r]));
    }
  }
}

}  // namespace ziggurat::kernels
