#include <algorithm>

#include <kernels/cpu/rms_row.h>

#include <ziggurat/kernels/rms_norm.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {
constexpr int64_t kRows = 32;  // rows of a block, also of a partial parameter gradient
}

template <Device D, class T>
void rms_norm_forward(const RmsNormArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "rms_norm_forward");
  const int64_t cols = g.cols;
  parallel_for_blocks(g.rows, kRows, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      g.rstd[i] = rms_row(g.x + i * cols, g.weight, g.eps, cols, g.y + i * cols);
    }
  });
}

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
      const T *x = g.x + i * cols, *dy = g.dy + i * cols;
      if (block_dweight != nullptr) rms_row_weight_gradient(x, g.rstd[i], dy, cols, block_dweight);
      if (g.dx == nullptr) continue;
      rms_row_gradient(x, g.weight, g.rstd[i], dy, cols, g.accumulate_dx, g.dx + i * cols);
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
