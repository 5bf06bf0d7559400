#include <algorithm>
#include <cmath>

#include <kernels/cpu/row_sums.h>

#include <ziggurat/kernels/layer_norm.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {
constexpr int64_t kRows = 32;  // rows of a block, also of a partial parameter gradient
}

template <Device D, class T>
void layer_norm_forward(const LayerNormArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "layer_norm_forward");
  using A = Accum<T>;
  const int64_t cols = g.cols;
  parallel_for_blocks(g.rows, kRows, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* x = g.x + i * cols;
      T* y = g.y + i * cols;
      // Two passes over a row in cache: E[x^2] - E[x]^2 would cancel.
      const A mean = sum_of<A>(cols, [=](int64_t j) { return A(x[j]); }) / A(cols);
      const A square = sum_of<A>(cols, [=](int64_t j) {
        const A d = A(x[j]) - mean;
        return d * d;
      });
      const A rstd = A(1) / std::sqrt(square / A(cols) + g.eps);
      g.mean[i] = mean;
      g.rstd[i] = rstd;
      for (int64_t j = 0; j < cols; ++j) y[j] = T((A(x[j]) - mean) * rstd * g.weight[j] + g.bias[j]);
    }
  });
}

// With xhat = (x - mean) rstd and v = dy weight:
//   dx = rstd (v - mean_j(v) - xhat mean_j(v xhat)), dweight = sum_i dy xhat, dbias = sum_i dy
template <Device D, class T>
void layer_norm_backward(const LayerNormGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "layer_norm_backward");
  using A = Accum<T>;
  const int64_t cols = g.cols, blocks = (g.rows + kRows - 1) / kRows;
  const ArenaScope scope(workspace);
  const auto partial_sums = [&](const A* wanted) {  // [blocks, cols], or null
    const int64_t bytes = blocks * cols * static_cast<int64_t>(sizeof(A));
    return wanted == nullptr ? nullptr : static_cast<A*>(workspace.allocate(bytes));
  };
  A* const dweight = partial_sums(g.dweight);
  A* const dbias = partial_sums(g.dbias);

  parallel_for_blocks(g.rows, kRows, [=](int64_t begin, int64_t end) {
    A* const block_dweight = dweight == nullptr ? nullptr : dweight + begin / kRows * cols;
    A* const block_dbias = dbias == nullptr ? nullptr : dbias + begin / kRows * cols;
    if (block_dweight != nullptr) std::fill(block_dweight, block_dweight + cols, A(0));
    if (block_dbias != nullptr) std::fill(block_dbias, block_dbias + cols, A(0));
    for (int64_t i = begin; i < end; ++i) {
      const T* x = g.x + i * cols;
      const T* dy = g.dy + i * cols;
      const A mean = g.mean[i], rstd = g.rstd[i];
      if (block_dweight != nullptr) {
        for (int64_t j = 0; j < cols; ++j) block_dweight[j] += A(dy[j]) * ((A(x[j]) - mean) * rstd);
      }
      if (block_dbias != nullptr) {
        for (int64_t j = 0; j < cols; ++j) block_dbias[j] += A(dy[j]);
      }
      if (g.dx == nullptr) continue;
      const A* weight = g.weight;
      const A v_mean = sum_of<A>(cols, [=](int64_t j) { return A(dy[j]) * weight[j]; }) / A(cols);
      const A vx_mean =
          sum_of<A>(cols, [=](int64_t j) { return A(dy[j]) * weight[j] * ((A(x[j]) - mean) * rstd); }) /
          A(cols);
      T* dx = g.dx + i * cols;
      for (int64_t j = 0; j < cols; ++j) {
        const A d = rstd * (A(dy[j]) * weight[j] - v_mean - (A(x[j]) - mean) * rstd * vx_mean);
        dx[j] = T(g.accumulate_dx ? A(dx[j]) + d : d);
      }
    }
  });
  if (dweight != nullptr) add_partial_sums(dweight, blocks, cols, g.dweight);
  if (dbias != nullptr) add_partial_sums(dbias, blocks, cols, g.dbias);
}

template void layer_norm_forward<Device::cpu>(const LayerNormArgs<float>&, Stream&);
template void layer_norm_forward<Device::cpu>(const LayerNormArgs<bf16>&, Stream&);
template void layer_norm_forward<Device::cpu>(const LayerNormArgs<double>&, Stream&);
template void layer_norm_backward<Device::cpu>(const LayerNormGradArgs<float>&, Arena&, Stream&);
template void layer_norm_backward<Device::cpu>(const LayerNormGradArgs<bf16>&, Arena&, Stream&);
template void layer_norm_backward<Device::cpu>(const LayerNormGradArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
