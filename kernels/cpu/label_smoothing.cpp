#include <algorithm>

#include <ziggurat/kernels/label_smoothing.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kColumns = 64;  // of a thread's sums
constexpr int64_t kRows = 32;

// sum [cols] of the rows of m for which counts(row).
template <class T, class Counts>
void sum_rows(const T* m, int64_t rows, int64_t cols, const Counts& counts, double* sum) {
  parallel_for_blocks(cols, kColumns, [&](int64_t begin, int64_t end) {
    std::fill(sum + begin, sum + end, 0.0);
    for (int64_t i = 0; i < rows; ++i) {
      if (!counts(i)) continue;
      const T* row = m + i * cols;
      for (int64_t j = begin; j < end; ++j) sum[j] += static_cast<double>(row[j]);
    }
  });
}

}  // namespace

template <Device D, class T>
void label_smoothing(const LabelSmoothingArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "label_smoothing");
  using A = Accum<T>;
  const ArenaScope scope(workspace);
  auto* const weights = workspace.take<double>(g.cols);  // their mean
  auto* const inputs = workspace.take<double>(g.cols);
  auto* const values = workspace.take<double>(g.rows);
  if (DryRun::on()) return;
  const auto counts = [&](int64_t i) { return g.targets[i] != g.ignore_index; };
  sum_rows(
      g.weight, g.vocabulary, g.cols, [](int64_t) { return true; }, weights);
  for (int64_t j = 0; j < g.cols; ++j) weights[j] /= static_cast<double>(g.words);
  const double scale = g.grad_scale == nullptr ? 0 : g.epsilon * *g.grad_scale;

  parallel_for_blocks(g.rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      values[i] = 0;
      T* const dx = g.dx == nullptr ? nullptr : g.dx + i * g.cols;
      if (!counts(i)) {
        if (dx != nullptr && !g.accumulate_dx) std::fill_n(dx, g.cols, T{});
        continue;
      }
      const T* x = g.x + i * g.cols;
      const T* target = g.own_targets[i] == g.elsewhere ? nullptr : g.weight + g.own_targets[i] * g.cols;
      for (int64_t j = 0; j < g.cols; ++j) {
        const double above = (target == nullptr ? 0 : static_cast<double>(target[j])) - weights[j];
        values[i] += static_cast<double>(x[j]) * above;
        if (dx != nullptr) dx[j] = T(A(scale * above) + (g.accumulate_dx ? A(dx[j]) : A(0)));
      }
    }
  });
  *g.sum = 0;
  for (int64_t i = 0; i < g.rows; ++i) *g.sum += g.epsilon * values[i];

  if (g.dweight == nullptr) return;
  sum_rows(g.x, g.rows, g.cols, counts, inputs);
  parallel_for_blocks(g.vocabulary, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t v = begin; v < end; ++v) {
      A* const dw = g.dweight + v * g.cols;
      for (int64_t j = 0; j < g.cols; ++j) {
        dw[j] -= static_cast<A>(scale * inputs[j] / static_cast<double>(g.words));
      }
    }
  });
  parallel_for_blocks(g.cols, kColumns, [&](int64_t begin, int64_t end) {  // columns: rows may share a target
    for (int64_t i = 0; i < g.rows; ++i) {
      if (g.own_targets[i] == g.elsewhere) continue;
      A* const dw = g.dweight + g.own_targets[i] * g.cols;
      const T* x = g.x + i * g.cols;
      for (int64_t j = begin; j < end; ++j) dw[j] += static_cast<A>(scale * static_cast<double>(x[j]));
    }
  });
}

template void label_smoothing<Device::cpu>(const LabelSmoothingArgs<float>&, Arena&, Stream&);
template void label_smoothing<Device::cpu>(const LabelSmoothingArgs<bf16>&, Arena&, Stream&);
template void label_smoothing<Device::cpu>(const LabelSmoothingArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
