#include <algorithm>

#include <ziggurat/kernels/dispatch.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kRows = 16;  // rows a thread takes at once

template <class T>
void add_row(const T* x, T* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = T(Accum<T>(y[i]) + Accum<T>(x[i]));
}

// Sixteen running sums, so that the compiler may use vectors without reordering anything itself.
template <class T>
Accum<T> dot(const T* a, const T* b, int64_t n) {
  using A = Accum<T>;
  constexpr int64_t kLanes = 16;
  A lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] += A(a[i + l]) * A(b[i + l]);
  }
  for (int64_t l = 0; i < n; ++i, ++l) lanes[l] += A(a[i]) * A(b[i]);
  A sum = 0;
  for (const A lane : lanes) sum += lane;
  return sum;
}

}  // namespace

template <Device D, class T>
void gather_rows(const GatherRowsArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "gather_rows");
  parallel_for_blocks(g.rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      if (g.from[r] >= 0) std::copy_n(g.x + g.from[r] * g.width, g.width, g.y + r * g.width);
    }
  });
}

template <Device D, class T>
void scatter_rows(const ScatterRowsArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "scatter_rows");
  parallel_for_blocks(g.rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      if (g.to[r] < 0) continue;
      const T* x = g.x + r * g.width;
      T* y = g.y + g.to[r] * g.width;
      if (g.accumulate) {
        add_row(x, y, g.width);
      } else {
        std::copy_n(x, g.width, y);
      }
    }
  });
}

template <Device D, class T>
void combine_rows(const CombineRowsArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "combine_rows");
  using A = Accum<T>;
  constexpr int64_t kChunk = 512;  // columns summed at once, in registers and L1
  parallel_for_blocks(g.tokens, kRows, [&](int64_t begin, int64_t end) {
    A sum[kChunk];
    for (int64_t s = begin; s < end; ++s) {
      for (int64_t c = 0; c < g.width; c += kChunk) {
        const int64_t n = std::min(kChunk, g.width - c);
        std::fill(sum, sum + n, A(0));
        for (int64_t j = 0; j < g.top_k; ++j) {
          const int64_t row = g.row[s * g.top_k + j];
          if (row < 0) continue;
          const T* x = g.x + row * g.width + c;
          const A w = g.weights == nullptr ? A(1) : g.weights[s * g.top_k + j];
          for (int64_t i = 0; i < n; ++i) sum[i] += w * A(x[i]);
        }
        T* y = g.y + s * g.width + c;
        if (g.accumulate) {
          for (int64_t i = 0; i < n; ++i) y[i] = T(A(y[i]) + sum[i]);
        } else {
          for (int64_t i = 0; i < n; ++i) y[i] = T(sum[i]);
        }
      }
    }
  });
}

template <Device D, class T>
void combine_rows_backward(const CombineRowsGradArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "combine_rows_backward");
  using A = Accum<T>;
  const CombineRowsArgs<T>& f = g.forward;
  parallel_for_blocks(f.tokens, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const T* dy = g.dy + s * f.width;
      for (int64_t c = s * f.top_k; c < (s + 1) * f.top_k; ++c) {
        const int64_t row = f.row[c];
        if (g.dweights != nullptr) {
          const A d = row < 0 ? A(0) : dot(f.x + row * f.width, dy, f.width);
          g.dweights[c] = g.accumulate_dweights ? g.dweights[c] + d : d;
        }
        if (g.dx == nullptr || row < 0) continue;
        const A w = f.weights == nullptr ? A(1) : f.weights[c];
        T* dx = g.dx + row * f.width;
        for (int64_t i = 0; i < f.width; ++i) {
          const A d = w * A(dy[i]);
          dx[i] = T(g.accumulate_dx ? A(dx[i]) + d : d);
        }
      }
    }
  });
}

template <Device D>
void order_arrivals(const ArrivalOrderArgs& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "order_arrivals");
  const ArenaScope scope(workspace);
  auto* next = workspace.take<int64_t>(g.ranks);  // arrival of each source
  if (DryRun::on()) return;
  if (g.block > 0) {
    std::fill_n(g.arrival_of_row, g.rows, -1);
    std::fill_n(g.row_of_arrival, g.rows, -1);
  }
  int64_t arrivals = 0;
  for (int64_t source = 0; source < g.ranks; ++source) {
    next[source] = arrivals;
    for (int64_t e = 0; e < g.experts; ++e) arrivals += g.arriving[source * g.experts + e];
  }
  int64_t row = 0;
  int32_t* offset = g.offsets;
  for (int64_t e = 0; e < g.experts; ++e) {
    for (int64_t source = 0; source < g.ranks; ++source) {
      if (source < g.sources) *offset++ = static_cast<int32_t>(row);
      if (g.block > 0) next[source] = (source * g.experts + e) * g.block;
      for (int64_t i = 0; i < g.arriving[source * g.experts + e]; ++i, ++row) {
        g.arrival_of_row[row] = static_cast<int32_t>(next[source]++);
        g.row_of_arrival[g.arrival_of_row[row]] = static_cast<int32_t>(row);
      }
    }
  }
  *offset = static_cast<int32_t>(row);
}

template void gather_rows<Device::cpu>(const GatherRowsArgs<float>&, Stream&);
template void gather_rows<Device::cpu>(const GatherRowsArgs<bf16>&, Stream&);
template void gather_rows<Device::cpu>(const GatherRowsArgs<double>&, Stream&);
template void scatter_rows<Device::cpu>(const ScatterRowsArgs<float>&, Stream&);
template void scatter_rows<Device::cpu>(const ScatterRowsArgs<bf16>&, Stream&);
template void scatter_rows<Device::cpu>(const ScatterRowsArgs<double>&, Stream&);
template void combine_rows<Device::cpu>(const CombineRowsArgs<float>&, Stream&);
template void combine_rows<Device::cpu>(const CombineRowsArgs<bf16>&, Stream&);
template void combine_rows<Device::cpu>(const CombineRowsArgs<double>&, Stream&);
template void combine_rows_backward<Device::cpu>(const CombineRowsGradArgs<float>&, Stream&);
template void combine_rows_backward<Device::cpu>(const CombineRowsGradArgs<bf16>&, Stream&);
template void combine_rows_backward<Device::cpu>(const CombineRowsGradArgs<double>&, Stream&);
template void order_arrivals<Device::cpu>(const ArrivalOrderArgs&, Arena&, Stream&);

}  // namespace ziggurat::kernels
