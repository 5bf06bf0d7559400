#include <algorithm>

#include <kernels/cpu/segments.h>
#include <kernels/cpu/stream_rows.h>

#include <ziggurat/kernels/few_rows.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

// Outputs of a unit of work: some 10 KiB of weights, so that a small layer still is many units. Units are
// handed out in runs, so a thread reads one contiguous piece of the weight.
constexpr int64_t kOutputs = 16;

// The rows in the dtype of the sums, arranged to meet rows of the weight.
template <class T>
const Accum<T>* arranged(const T* x, int64_t rows, int64_t cols, Arena& workspace) {
  if constexpr (std::is_same_v<T, bf16>) {
    auto* wide = workspace.take<float>(rows * cols);
    parallel_for_blocks(
        rows, 1, [=](int64_t row, int64_t) { arrange_in_pairs<T>(x + row * cols, cols, wide + row * cols); });
    return wide;
  } else {
    return x;
  }
}

}  // namespace

template <Device D, class T, class TY>
void few_rows_linear(const FewRowsArgs<T, TY>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "few_rows_linear");
  using A = Accum<T>;
  const ArenaScope scope(workspace);
  const A* x = arranged(g.x, g.rows, g.in, workspace);
  const Segments all = segments_of(g.groups, g.rows, workspace);
  auto* filled = workspace.take<Segment>(all.count);
  Segment* const end =
      std::copy_if(all.begin(), all.end(), filled, [](const Segment& s) { return s.rows > 0; });
  const int64_t units = (g.out + kOutputs - 1) / kOutputs;  // of a segment
  Stream quiet(stream.device());                            // thousands of epilogues: no span for each

  parallel_for_blocks((end - filled) * units, 1, [&](int64_t unit, int64_t) {
    const Segment& s = filled[unit / units];
    const int64_t first = unit % units * kOutputs, count = std::min(kOutputs, g.out - first);
    const T* weight = g.weight + s.expert * g.out * g.in;
    for_row_tiles(s.rows, [&]<int M>(int64_t tile, std::integral_constant<int, M>) {
      A sums[M][kOutputs];
      const int64_t row = s.row_begin + tile;
      for (int64_t o = 0; o < count; ++o) {
        dot_with_rows<M>(weight + (first + o) * g.in, x + row * g.in, g.in, g.in, &sums[0][o], kOutputs);
      }
      for (int64_t m = 0; m < M; ++m) {
        if (g.bias != nullptr || g.activation != Activation::none) {
          const A* bias = g.bias == nullptr ? nullptr : g.bias + s.expert * g.out + first;
          bias_activation_forward<D>(BiasActivationArgs<A>{g.activation, 1, count, sums[m], bias, sums[m]},
                                     quiet);
        }
        TY* y = g.y + (row + m) * g.out + first;
        for (int64_t o = 0; o < count; ++o) y[o] = TY(sums[m][o]);
      }
    });
  });
}

template void few_rows_linear<Device::cpu>(const FewRowsArgs<float, float>&, Arena&, Stream&);
template void few_rows_linear<Device::cpu>(const FewRowsArgs<bf16, bf16>&, Arena&, Stream&);
template void few_rows_linear<Device::cpu>(const FewRowsArgs<bf16, float>&, Arena&, Stream&);
template void few_rows_linear<Device::cpu>(const FewRowsArgs<double, double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
