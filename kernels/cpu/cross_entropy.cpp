#include <algorithm>
#include <cmath>
#include <limits>

#include <kernels/cpu/reductions.h>

#include <ziggurat/kernels/cross_entropy.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

// Rows of a unit of work: enough to be worth handing out.
constexpr int64_t kRows = 8;

// How far above its reference a logit may lie: e^40 and its products with numbers as far from 1 again are
// well within f32 and bf16.
constexpr double kReach = 40;

// y[j] = factor * x[j]; not inlined, like the next: see reductions.h. Where a row is rounded to bf16 without
// `omp simd`, under which gcc 12 does not vectorise that.
template <class A, class X, class Y>
[[gnu::noinline]] void scale_row(const X* __restrict x, A factor, Y* __restrict y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = Y(factor * A(x[j]));
}

template <class A, class X>
[[gnu::noinline]] void add_scaled_row(const X* __restrict x, A factor, A* __restrict y, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) y[j] += factor * A(x[j]);
}

template <class A, class G>
[[gnu::noinline]] void round_row(const A* x, G* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = G(x[j]);
}

template <class A>
[[gnu::noinline]] void exp_of_differences(const A* x, const A* y, int64_t n, A* __restrict e) {
  for (int64_t j = 0; j < n; ++j) e[j] = vexp(x[j] - y[j]);
}

// The largest value of each of n columns of x, whose rows are ld elements apart.
template <class A>
void largest(const A* x, int64_t rows, int64_t ld, int64_t n, A* __restrict max) {
  std::fill_n(max, n, -std::numeric_limits<A>::infinity());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < n; ++i) max[i] = std::max(max[i], x[r * ld + i]);
  }
}

template <class A, class G>
void softmax_row(const SoftmaxTileArgs<A, G>& g, int64_t i) {
  const A* logits = g.logits + i * g.stride;
  const int64_t target = g.targets[i] - g.first_column;
  if (target >= 0 && target < g.cols) g.target_logit[i] = logits[target];
  const A max = g.maximum[i] = row_max(logits, g.cols);
  const bool stays = g.previous != nullptr && max - g.previous[i] <= A(kReach);
  const A reference = g.reference[i] = stays ? g.previous[i] : max;
  if (g.exponentials == nullptr) {
    g.sum[i] = exp_sum(logits, reference, g.cols);
    return;
  }
  G* e = g.exponentials + i * g.stride;
  if constexpr (std::is_same_v<A, G>) {
    g.sum[i] = exp_row(logits, reference, e, g.cols);
  } else {  // by way of a buffer in the first cache: gcc 12 does not vectorise an exponential that also
            // rounds
    constexpr int64_t kBlock = 512;
    alignas(64) A block[kBlock];
    g.sum[i] = 0;
    for (int64_t j = 0; j < g.cols; j += kBlock) {
      const int64_t n = std::min(kBlock, g.cols - j);
      g.sum[i] += exp_row(logits + j, reference, block, n);
      round_row(block, e + j, n);
    }
  }
  std::fill(e + g.cols, e + g.stride, G{});
}

}  // namespace

template <Device D, class A, class G>
void softmax_tile(const SoftmaxTileArgs<A, G>& g, Stream& stream) {
  const Span span(stream.profile(), "softmax_tile");
  parallel_for_blocks(g.rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) softmax_row(g, i);
  });
}

template <Device D, class A>
void cross_entropy(const CrossEntropyArgs<A>& g, Stream& stream) {
  const Span span(stream.profile(), "cross_entropy");
  constexpr int64_t kTokens = 64;  // of a unit of work, whose exponentials are vectors
  parallel_for_blocks(g.rows, kTokens, [&](int64_t begin, int64_t end) {
    const int64_t n = end - begin;
    A max[kTokens], reference[kTokens], e[kTokens], scale[kTokens];
    double sum[kTokens] = {};
    largest(g.maximum + begin, g.tiles, g.rows, n, max);
    largest(g.reference + begin, g.tiles, g.rows, n, reference);
    for (int64_t t = 0; t < g.tiles; ++t) {
      exp_of_differences(g.reference + t * g.rows + begin, reference, n, e);
      for (int64_t i = 0; i < n; ++i) sum[i] += g.sum[t * g.rows + begin + i] * double(e[i]);
    }
    for (int64_t i = 0; i < n; ++i) {
      const int64_t row = begin + i;
      g.losses[row] = {};
      scale[i] = 0;
      if (g.targets[row] == g.ignore_index) continue;
      const double log_sum_exp = double(reference[i]) + std::log(sum[i]);
      g.losses[row] = {log_sum_exp - double(g.target_logit[row]), g.z_loss * log_sum_exp * log_sum_exp, true,
                       g.target_logit[row] >= max[i]};
      scale[i] = A(*g.grad_scale * (1 + 2 * g.z_loss * log_sum_exp) / sum[i]);
    }
    for (int64_t t = 0; g.factor != nullptr && t < g.tiles; ++t) {
      exp_of_differences(g.reference + t * g.rows + begin, reference, n, e);
      for (int64_t i = 0; i < n; ++i) g.factor[t * g.rows + begin + i] = scale[i] * e[i];
    }
  });
}

template <Device D>
void add_token_losses(const AddTokenLossesArgs& g, Stream& stream) {
  const Span span(stream.profile(), "add_token_losses");
  if (DryRun::on()) return;
  for (int64_t i = 0; i < g.rows; ++i) {
    const TokenLoss& loss = g.losses[i];
    g.sums[0] += loss.cross_entropy;
    g.sums[1] += loss.z_loss;
    g.sums[2] += loss.counted ? 1 : 0;
    g.sums[3] += loss.correct ? 1 : 0;
    if (g.token_losses != nullptr) g.token_losses[i] = loss.cross_entropy;
  }
}

template <Device D, class A, class G>
void scale_rows(const G* x, const A* factor, int64_t rows, int64_t cols, G* y, Stream& stream) {
  const Span span(stream.profile(), "scale_rows");
  parallel_for_blocks(rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) scale_row(x + i * cols, factor[i], y + i * cols, cols);
  });
}

template <Device D, class A>
void add_scaled_rows(const A* x, const A* factor, int64_t rows, int64_t cols, A* y, Stream& stream) {
  const Span span(stream.profile(), "add_scaled_rows");
  parallel_for_blocks(rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) add_scaled_row(x + i * cols, factor[i], y + i * cols, cols);
  });
}

template <Device D, class A, class G>
void subtract_targets(const SubtractTargetsArgs<A, G>& g, Stream& stream) {
  const Span span(stream.profile(), "subtract_targets");
  parallel_for_blocks(g.cols, 64, [&](int64_t begin, int64_t end) {  // columns: rows may share a target
    for (int64_t i = 0; i < g.rows; ++i) {
      const int64_t target = g.targets[i];
      if (target == g.ignore_index) continue;
      const A scale = A(-*g.grad_scale);
      const int64_t n = end - begin, row = i * g.cols + begin, target_row = target * g.cols + begin;
      if (g.dx != nullptr) add_scaled_row(g.weight + target_row, scale, g.dx + row, n);
      if (g.dweight != nullptr) add_scaled_row(g.x + row, scale, g.dweight + target_row, n);
    }
  });
}

template void softmax_tile<Device::cpu>(const SoftmaxTileArgs<float, float>&, Stream&);
template void softmax_tile<Device::cpu>(const SoftmaxTileArgs<float, bf16>&, Stream&);
template void softmax_tile<Device::cpu>(const SoftmaxTileArgs<double, double>&, Stream&);
template void cross_entropy<Device::cpu>(const CrossEntropyArgs<float>&, Stream&);
template void cross_entropy<Device::cpu>(const CrossEntropyArgs<double>&, Stream&);
template void add_token_losses<Device::cpu>(const AddTokenLossesArgs&, Stream&);
template void scale_rows<Device::cpu>(const float*, const float*, int64_t, int64_t, float*, Stream&);
template void scale_rows<Device::cpu>(const bf16*, const float*, int64_t, int64_t, bf16*, Stream&);
template void scale_rows<Device::cpu>(const double*, const double*, int64_t, int64_t, double*, Stream&);
template void add_scaled_rows<Device::cpu>(const float*, const float*, int64_t, int64_t, float*, Stream&);
template void add_scaled_rows<Device::cpu>(const double*, const double*, int64_t, int64_t, double*, Stream&);
template void subtract_targets<Device::cpu>(const SubtractTargetsArgs<float, float>&, Stream&);
template void subtract_targets<Device::cpu>(const SubtractTargetsArgs<float, bf16>&, Stream&);
template void subtract_targets<Device::cpu>(const SubtractTargetsArgs<double, double>&, Stream&);

}  // namespace ziggurat::kernels
