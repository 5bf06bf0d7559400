#include <algorithm>
#include <cmath>

#include <kernels/cpu/row_sums.h>

#include <ziggurat/kernels/rms_norm.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {
constexpr int64_t kRows = 32;  // rows of a block, also of a partial parameter gradient
}

template <Device D, class T>
void rms_norm_forward(const RmsNormArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "rms_norm_forward");
  using A = Accum<T>;
  const int64_t cols = g.cols;
  parallel_for_blocks(g.rows, kRows, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* x = g.x + i * cols;
      T* y = g.y + i * cols;
      const A square = sum_of<A>(cols, [=](int64_t j) { return A(x[j]) * A(x[j]); });
      const A rstd = A(1) / std::sqrt(square / A(cols) + g.eps);
      g.rstd[i] = rstd;
      for (int64_t j = 0; j < cols; ++j) y[j] = T(A(x[j]) * rstd * g.weight[j]);
    }
  });
}

// With xhat = x rstd and v = dy weight: dx = rstd (v - xhat mean_j(v xhat)), dweight = sum_i dy xhat
template <Device D, class T>
void rms_norm_backward(const RmsNormGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "rms_norm_backward");
  using A = Accum<T>;
  const int64_t cols = g.cols, blocks = (g.rows + kRows - 1) / kRows;
  const ArenaScope scope(workspace);
  A* dweight = nullptr;  // [blocks, cols] sums of each block
  if (g.dweight != nullptr) {
    dweight = workspace.take_on_device<A>(blocks * cols);
  }
  parallel_for_blocks(g.rows, kRows, [=](int64_t begin, int64_t end) {
    A* const block_dweight = dweight == nullptr ? nullptr : dweight + begin / kRows * cols;
    if (block_dweight != nullptr) std::fill(block_dweight, block_dweight + cols, A(0));
    for (int64_t i = begin; i < end; ++i) {
      const T* x = g.x + i * cols;
      const T* dy = g.dy + i * cols;
      const A rstd = g.rstd[i];
      if (block_dweight != nullptr) {
        for (int64_t j = 0; j < cols; ++j) block_dweight[j] += A(dy[j]) * (A(x[j]) * rstd);
      }
      if (g.dx == nullptr) continue;
      const A* weight = g.weight;
      const A vx_mean =
          sum_of<A>(cols, [=](int64_t j) { return A(dy[j]) * weight[j] * (A(x[j]) * rstd); }) / A(cols);
      T* dx = g.dx + i * cols;
      for (int64_t j = 0; j < cols; ++j) {
        const A d = rstd * (A(dy[j]) * weight[j] - A(x[j]) * rstd * vx_mean);
        dx[j] = T(g.accumulate_dx ? A(dx[j]) + d : d);
      }
    }
  });
  if (dweight != nullptr) add_partial_sums(dweight, blocks, cols, g.dweight);
}

template void rms_norm_forward<Device::cpu>(const RmsNormArgs<float>&, Stream&);
template void rms_norm_forward<Device::cpu>(const RmsNormArgs<bf16>&, Stream&);
template void rms_norm_forward<Device::cpu>(const RmsNormArgs<double>&, Stream&);
template void rms_norm_backward<Device::cpu>(const RmsNormGradArgs<float>&, Arena&, Stream&);
template void rms_norm_backward<Device::cpu>(const RmsNormGradArgs<bf16>&, Arena&, Stream&);
template void rms_norm_backward<Device::cpu>(const RmsNormGradArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
