#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include <kernels/cpu/panel_products.h>
#include <kernels/cpu/segments.h>

#include <ziggurat/kernels/panel_linear.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

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

template <Device D, class T>
void quantise(const T* weights, int64_t count, int64_t out, int64_t in, void* memory) {
  auto* const numbers = static_cast<int8_t*>(memory);
  auto* const scales = reinterpret_cast<float*>(numbers + Int8Weights::scales_at(count * out * in));
  const int64_t panels = (out + kPanelRows - 1) / kPanelRows;
  parallel_for(count * panels, [&](int64_t i) {
    const int64_t matrix = i / panels, begin = i % panels * kPanelRows,
                  end = std::min(out, begin + kPanelRows);
    for (int64_t r = begin; r < end; ++r) {
      const T* const row = weights + (matrix * out + r) * in;
      float largest = 0;
      for (int64_t k = 0; k < in; ++k) largest = std::max(largest, std::abs(static_cast<float>(row[k])));
      const float scale = largest / 127;
      scales[matrix * out + r] = scale;
      for (int64_t k = 0; k < in; ++k) {
        const float number = scale > 0 ? std::nearbyint(static_cast<float>(row[k]) / scale) : 0.0f;
        numbers[matrix * out * in + place_of_number(r, k, out, in)] = static_cast<int8_t>(number);
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
  // Of each thread: a panel of numbers, widened, where that pays or it is a part of one.
  const int threads = thread_count();
  T* const all_wide = g.int8 ? workspace.take<T>(threads * kPanelRows * g.in) : nullptr;

  parallel_for((end - filled) * panels, [&](int64_t unit) {
    const Segment& s = filled[unit / panels];
    const int64_t first = unit % panels * kPanelRows, width = std::min(kPanelRows, g.out - first);
    const int64_t row_of_weight = s.expert * g.out + first;
    const T* weight = g.int8 ? nullptr : g.weight + row_of_weight * g.in;
    const int8_t* numbers = g.int8 ? g.int8.numbers + row_of_weight * g.in : nullptr;
    if (numbers != nullptr && (width < kPanelRows || (kWidensPanels<T> && s.rows > kWideningPays))) {
      T* const wide = all_wide + (threads == 1 ? 0 : thread_index()) * kPanelRows * g.in;
      widen_panel(numbers, width, g.in, wide);
      weight = wide;
      numbers = nullptr;
    }
    const float* const scales = g.int8 ? g.int8.scales + row_of_weight : nullptr;
    const A* const bias = g.bias == nullptr ? nullptr : g.bias + row_of_weight;
    for (int64_t tile = 0; tile < s.rows; tile += kRows) {
      const int64_t row = s.row_begin + tile, rows = std::min<int64_t>(kRows, s.rows - tile);
      alignas(64) A sums[kRows * kPanelRows];
      with_rows<kRows>(rows, [&]<int M>(std::integral_constant<int, M>) {
        panel<M, T>(weight, numbers, width, x + row * g.in, g.in, g.in, sums);
      });
      // Rows of a whole panel lie one after another: one epilogue for all.
      const int64_t together = width == kPanelRows ? rows : 1;
      for (int64_t m = 0; m < rows; m += together) {
        A* const sum = sums + m * kPanelRows;
        for (int64_t i = 0; scales != nullptr && i < together; ++i) {
          for (int64_t o = 0; o < width; ++o) sum[i * width + o] *= static_cast<A>(scales[o]);
        }
        if (bias != nullptr || g.activation != Activation::none) {
          bias_activation_forward<D>(BiasActivationArgs<A>{g.activation, together, width, sum, bias, sum},
                                     quiet);
        }
        for (int64_t i = 0; i < together; ++i) {
          TY* const y = g.y + (row + m + i) * g.out + first;
          for (int64_t o = 0; o < width; ++o) y[o] = TY(sum[i * width + o]);
        }
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
      const int64_t token = g.tokens[i];
      if (token < 0) {
        std::fill_n(y, g.in, T(0.0F));
        continue;
      }
      for (int64_t k = 0; k < g.in; ++k) {
        y[k] = g.int8 ? T(g.int8.scales[token] *
                          static_cast<float>(g.int8.numbers[place_of_number(token, k, g.out, g.in)]))
                      : g.table[place_in_panels<T>(token, k, g.out, g.in)];
      }
      if (g.position_table == nullptr) continue;
      const T* place = g.position_table + g.positions[i] * g.in;
      for (int64_t k = 0; k < g.in; ++k) y[k] = T(A(y[k]) + A(place[k]));
    }
  });
}

template void to_panels<Device::cpu>(float*, int64_t, int64_t, int64_t);
template void to_panels<Device::cpu>(bf16*, int64_t, int64_t, int64_t);
template void to_panels<Device::cpu>(double*, int64_t, int64_t, int64_t);
template void quantise<Device::cpu>(const float*, int64_t, int64_t, int64_t, void*);
template void quantise<Device::cpu>(const bf16*, int64_t, int64_t, int64_t, void*);
template void panel_linear<Device::cpu>(const PanelLinearArgs<float, float>&, Arena&, Stream&);
template void panel_linear<Device::cpu>(const PanelLinearArgs<bf16, bf16>&, Arena&, Stream&);
template void panel_linear<Device::cpu>(const PanelLinearArgs<bf16, float>&, Arena&, Stream&);
template void panel_linear<Device::cpu>(const PanelLinearArgs<double, double>&, Arena&, Stream&);
template void panel_gather<Device::cpu>(const PanelGatherArgs<float>&, Stream&);
template void panel_gather<Device::cpu>(const PanelGatherArgs<bf16>&, Stream&);
template void panel_gather<Device::cpu>(const PanelGatherArgs<double>&, Stream&);

}  // namespace ziggurat::kernels
