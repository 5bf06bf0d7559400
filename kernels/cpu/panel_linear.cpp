#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include <immintrin.h>
#include <kernels/cpu/segments.h>
#include <kernels/cpu/stream_rows.h>

#include <ziggurat/kernels/panel_linear.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

// Rows of x that share a read of a panel: with its vectors they fill the registers.
template <class T>
constexpr int kTileRows = sizeof(T) == 8 ? 3 : 6;

// What products of bf16 take: x as it is where the CPU multiplies pairs, else in f32.
template <class T>
using Operand = std::conditional_t<std::is_same_v<T, bf16> && kHasBf16Products, bf16, Accum<T>>;

template <class T>
const Operand<T>* operand(const T* x, int64_t n, Arena& workspace) {
  if constexpr (std::is_same_v<T, Operand<T>>) {
    return x;
  } else {
    auto* wide = workspace.take<Operand<T>>(n);
    parallel_for_blocks(n, 4096, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) wide[i] = Operand<T>(x[i]);
    });
    return wide;
  }
}

template <class A>
using Vector = typename Lanes<A>::Vector;

// sums += both products of the pairs that two vectors of bf16 hold.
template <class V>
inline void add_pairs(const uint32_t x, const void* weights, V& sums) {
  if constexpr (kHasBf16Products) {
    __m512i pairs;
    std::memcpy(&pairs, weights, sizeof(pairs));
    __m512 sum;
    std::memcpy(&sum, &sums, sizeof(sum));
    sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(x)), (__m512bh)pairs);
    std::memcpy(&sums, &sum, sizeof(sum));
  }
}

// sums [M][kVectors] = x_m . rows of a whole panel, for M rows x_m, ldx elements apart.
template <int M, class T>
[[gnu::noinline]] void whole_panel(const T* w, const Operand<T>* x, int64_t ldx, int64_t in, Accum<T>* y) {
  using A = Accum<T>;
  using V = Vector<A>;
  constexpr int64_t kLanes = Lanes<A>::kCount;
  constexpr int kVectors = static_cast<int>(kPanelRows / kLanes);
  V sums[M][kVectors] = {};
  const auto fetch = [&](int64_t k, int64_t columns) __attribute__((always_inline)) {
    if (M > 2) return;  // their products take longer than the read
    const char* ahead = reinterpret_cast<const char*>(w + k * kPanelRows) + kAhead;
#pragma GCC unroll 8
    for (int64_t line = 0; line < columns * kPanelRows * int64_t{sizeof(T)}; line += 64) {
      __builtin_prefetch(ahead + line);
    }
  };
  int64_t k = 0;
  if constexpr (std::is_same_v<T, bf16>) {
    for (; k + 2 <= in; k += 2) {
      fetch(k, 2);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        if constexpr (kHasBf16Products) {
          uint32_t pair;
          std::memcpy(&pair, x + m * ldx + k, sizeof(pair));
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) {
            add_pairs(pair, w + k * kPanelRows + v * 2 * kLanes, sums[m][v]);
          }
        } else {
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) {
            V even, odd;
            load_pair(w + k * kPanelRows + v * 2 * kLanes, even, odd);
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
    for (int v = 0; v < kVectors; ++v) load_lanes(w + k * kPanelRows + v * kLanes, weights[v]);
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
            add_pairs(pair, pairs, sums[m]);
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

template <int M, class T>
void panel(const T* w, int64_t width, const Operand<T>* x, int64_t ldx, int64_t in, Accum<T>* y) {
  if (width == kPanelRows) {
    whole_panel<M, T>(w, x, ldx, in, y);
  } else {
    part_of_panel<M, T>(w, width, x, ldx, in, y);
  }
}

// f(std::integral_constant<int, M>) with M = n <= kMost.
template <int kMost, class F>
void with_rows(int64_t n, const F& f) {
  if constexpr (kMost > 1) {
    if (n < kMost) return with_rows<kMost - 1>(n, f);
  }
  f(std::integral_constant<int, kMost>{});
}

}  // namespace

template <Device D, class T>
void to_panels(T* weights, int64_t count, int64_t out, int64_t in) {
  const int64_t panels = (out + kPanelRows - 1) / kPanelRows;
  parallel_for(count * panels, [&](int64_t i) {
    const int64_t first = i % panels * kPanelRows, width = std::min(kPanelRows, out - first);
    T* const panel = weights + i / panels * out * in + first * in;
    const std::vector<T> rows(panel, panel + width * in);
    for (int64_t r = 0; r < width; ++r) {
      for (int64_t k = 0; k < in; ++k) {
        panel[place_in_panels<T>(r, k, width, in)] = rows[static_cast<size_t>(r * in + k)];
      }
    }
  });
}

template <Device D, class T, class TY>
void panel_linear(const PanelLinearArgs<T, TY>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "panel_linear");
  using A = Accum<T>;
  constexpr int kRows = kTileRows<T>;
  const ArenaScope scope(workspace);
  const auto* x = operand(g.x, g.rows * g.in, workspace);
  const Segments all = segments_of(g.groups, g.rows, workspace);
  auto* filled = workspace.take<Segment>(all.count);
  Segment* const end =
      std::copy_if(all.begin(), all.end(), filled, [](const Segment& s) { return s.rows > 0; });
  const int64_t panels = (g.out + kPanelRows - 1) / kPanelRows;
  Stream quiet(stream.device());  // thousands of epilogues: no span for each

  parallel_for((end - filled) * panels, [&](int64_t unit) {
    const Segment& s = filled[unit / panels];
    const int64_t first = unit % panels * kPanelRows, width = std::min(kPanelRows, g.out - first);
    const T* const weight = g.weight + (s.expert * g.out + first) * g.in;
    const A* const bias = g.bias == nullptr ? nullptr : g.bias + s.expert * g.out + first;
    for (int64_t tile = 0; tile < s.rows; tile += kRows) {
      const int64_t row = s.row_begin + tile, rows = std::min<int64_t>(kRows, s.rows - tile);
      alignas(64) A sums[kRows * kPanelRows];
      with_rows<kRows>(rows, [&]<int M>(std::integral_constant<int, M>) {
        panel<M, T>(weight, width, x + row * g.in, g.in, g.in, sums);
      });
      for (int64_t m = 0; m < rows; ++m) {
        A* const sum = sums + m * kPanelRows;
        if (bias != nullptr || g.activation != Activation::none) {
          bias_activation_forward<D>(BiasActivationArgs<A>{g.activation, 1, width, sum, bias, sum}, quiet);
        }
        TY* const y = g.y + (row + m) * g.out + first;
        for (int64_t o = 0; o < width; ++o) y[o] = TY(sum[o]);
      }
    }
  });
}

template <Device D, class T>
void panel_gather(const PanelGatherArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "panel_gather");
  using A = Accum<T>;
  parallel_for_blocks(g.rows, 32, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* const y = g.y + i * g.in;
      if (g.tokens[i] < 0) {
        std::fill_n(y, g.in, T(0.0F));
        continue;
      }
      for (int64_t k = 0; k < g.in; ++k) y[k] = g.table[place_in_panels<T>(g.tokens[i], k, g.out, g.in)];
      if (g.position_table == nullptr) continue;
      const T* place = g.position_table + g.positions[i] * g.in;
      for (int64_t k = 0; k < g.in; ++k) y[k] = T(A(y[k]) + A(place[k]));
    }
  });
}

template void to_panels<Device::cpu>(float*, int64_t, int64_t, int64_t);
template void to_panels<Device::cpu>(bf16*, int64_t, int64_t, int64_t);
template void to_panels<Device::cpu>(double*, int64_t, int64_t, int64_t);
template void panel_linear<Device::cpu>(const PanelLinearArgs<float, float>&, Arena&, Stream&);
template void panel_linear<Device::cpu>(const PanelLinearArgs<bf16, bf16>&, Arena&, Stream&);
template void panel_linear<Device::cpu>(const PanelLinearArgs<bf16, float>&, Arena&, Stream&);
template void panel_linear<Device::cpu>(const PanelLinearArgs<double, double>&, Arena&, Stream&);
template void panel_gather<Device::cpu>(const PanelGatherArgs<float>&, Stream&);
template void panel_gather<Device::cpu>(const PanelGatherArgs<bf16>&, Stream&);
template void panel_gather<Device::cpu>(const PanelGatherArgs<double>&, Stream&);

}  // namespace ziggurat::kernels
