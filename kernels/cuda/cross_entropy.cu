// softmax_tile: a block takes one row of a tile, 16 bytes a thread at a time, or one value where sizes or
// addresses are no multiple of that; the second time it is read it comes from the cache, as the whole tile
// may (512 rows of 2112 columns in fp32 are 4 MB). cross_entropy: a thread a row, neighbours side by side.
// add_token_losses: one block; the rows of a call are few. The others: a block a row, but sums of rows as in
// device/add_rows.h. Floor: memory; softmax_tile rows stride (4 + sizeof(G)) bytes, 3 FLOPs and one
// exponential a value; scale_rows 2 rows cols sizeof(G) bytes, add_scaled_rows 12 rows cols; subtract_targets
// rows cols (8 + sizeof(G)) bytes for dx, and rows cols sizeof(G) and 8 cols for each target that occurs for
// dweight; at most 2 FLOPs a value.
#include <kernels/cuda/device/add_rows.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/logits.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/cross_entropy.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;

// How far above its reference a logit may lie: e^40 and its products with numbers as far from 1 again are
// well within f32 and bf16.
constexpr float kReach = 40;

template <class G, int N>
__global__ void __launch_bounds__(kThreads) softmax_tile_kernel(SoftmaxTileArgs<float, G> g) {
  const int64_t row = blockIdx.x;
  const float* logits = g.logits + row * g.stride;
  if (threadIdx.x == 0) {  // before exponentials take its place
    const int64_t target = g.targets[row] - g.first_column;
    if (target >= 0 && target < g.cols) g.target_logit[row] = logits[target];
  }
  float values[N];
  float max = Maximum::kNeutral<float>;
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    load_logits(logits, j, g.cols, values);
#pragma unroll
    for (int i = 0; i < N; ++i) max = fmaxf(max, values[i]);
  }
  max = block_max<kThreads>(max);
  const float previous = g.previous == nullptr ? 0.0f : g.previous[row];
  const bool stays = g.previous != nullptr && max - previous <= kReach;
  const float reference = stays ? previous : max;
  float sum = 0;
  const int64_t end = g.exponentials == nullptr ? g.cols : g.stride;
  for (int64_t j = threadIdx.x * N; j < end; j += kThreads * N) {
    load_logits(logits, j, g.cols, values);
    Values<G, N> e;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      e.v[i] = j + i < g.cols ? expf(values[i] - reference) : 0.0f;
      sum += e.v[i];
    }
    if (g.exponentials != nullptr) store(g.exponentials + row * g.stride + j, e);
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) {
    g.reference[row] = reference;
    g.maximum[row] = max;
    g.sum[row] = static_cast<double>(sum);
  }
}

__global__ void __launch_bounds__(kThreads) cross_entropy_kernel(CrossEntropyArgs<float> g) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= g.rows) return;
  float max = Maximum::kNeutral<float>, reference = max;
  for (int64_t t = 0; t < g.tiles; ++t) {
    max = fmaxf(max, g.maximum[t * g.rows + row]);
    reference = fmaxf(reference, g.reference[t * g.rows + row]);
  }
  double sum = 0;
  for (int64_t t = 0; t < g.tiles; ++t) {
    const int64_t at = t * g.rows + row;
    sum += g.sum[at] * static_cast<double>(expf(g.reference[at] - reference));
  }
  TokenLoss loss{};
  float scale = 0;
  if (g.targets[row] != g.ignore_index) {
    const double log_sum_exp = static_cast<double>(reference) + log(sum);
    const float target = g.target_logit[row];
    loss.cross_entropy = log_sum_exp - static_cast<double>(target);
    loss.z_loss = g.z_loss * log_sum_exp * log_sum_exp;
    loss.counted = true;
    loss.correct = target >= max;
    scale = static_cast<float>(*g.grad_scale * (1 + 2 * g.z_loss * log_sum_exp) / sum);
  }
  g.losses[row] = loss;
  if (g.factor == nullptr) return;
  for (int64_t t = 0; t < g.tiles; ++t) {
    const int64_t at = t * g.rows + row;
    g.factor[at] = scale * expf(g.reference[at] - reference);
  }
}

__global__ void __launch_bounds__(kThreads) add_token_losses_kernel(AddTokenLossesArgs g) {
  double sums[4] = {};
  for (int64_t i = threadIdx.x; i < g.rows; i += kThreads) {
    const TokenLoss loss = g.losses[i];
    sums[0] += loss.cross_entropy;
    sums[1] += loss.z_loss;
    sums[2] += loss.counted ? 1 : 0;
    sums[3] += loss.correct ? 1 : 0;
    if (g.token_losses != nullptr) g.token_losses[i] = loss.cross_entropy;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) sums[k] = block_sum<kThreads>(sums[k]);
  if (threadIdx.x > 0) return;
#pragma unroll
  for (int k = 0; k < 4; ++k) g.sums[k] += sums[k];
}

template <class G, int N>
__global__ void __launch_bounds__(kThreads)
    scale_rows_kernel(const G* x, const float* factor, int64_t cols, G* y) {
  const int64_t row = blockIdx.x, first = row * cols;
  const float f = factor[row];
  for (int64_t j = threadIdx.x * N; j < cols; j += kThreads * N) {
    Values<G, N> values = load<N>(x + first + j);
#pragma unroll
    for (int i = 0; i < N; ++i) values.v[i] *= f;
    store(y + first + j, values);
  }
}

// y[i] += factor x[row]: row and factor are i and factors[i]; or, with targets, the target and
// -*minus, and nothing is added where that is ignored.
template <class X, int N>
__global__ void __launch_bounds__(kThreads)
    add_scaled_rows_kernel(const X* x, const float* factors, const int32_t* targets, int32_t ignore_index,
                           const double* minus, int64_t cols, float* y) {
  const int64_t row = blockIdx.x, source = targets == nullptr ? row : targets[row];
  if (targets != nullptr && source == ignore_index) return;
  const float f = factors == nullptr ? static_cast<float>(-*minus) : factors[row];
  for (int64_t j = threadIdx.x * N; j < cols; j += kThreads * N) {
    const Values<X, N> values = load<N>(x + source * cols + j);
    float sum[N];
    load_floats(y + row * cols + j, sum);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += f * values.v[i];
    store_floats(y + row * cols + j, sum);
  }
}

template <class X>
void start_add_scaled_rows(const X* x, const float* factors, const int32_t* targets, int32_t ignore_index,
                           const double* minus, int64_t rows, int64_t cols, float* y, Stream& stream) {
  const auto blocks = static_cast<unsigned>(rows);
  launch(fit_lanes(cols, x) && fit_lanes(cols, y) ? add_scaled_rows_kernel<X, kLanes<X>>
                                                  : add_scaled_rows_kernel<X, 1>,
         blocks, kThreads, 0, stream, x, factors, targets, ignore_index, minus, cols, y);
}

}  // namespace

template <Device D, class A, class G>
void softmax_tile(const SoftmaxTileArgs<A, G>& g, Stream& stream) {
  const Span span(stream.profile(), "softmax_tile");
  const auto rows = static_cast<unsigned>(g.rows);
  launch(fit_lanes(g.stride, g.logits) && fit_lanes(g.stride, g.exponentials)
             ? softmax_tile_kernel<G, kLanes<G>>
             : softmax_tile_kernel<G, 1>,
         rows, kThreads, 0, stream, g);
}

template <Device D, class A>
void cross_entropy(const CrossEntropyArgs<A>& g, Stream& stream) {
  const Span span(stream.profile(), "cross_entropy");
  launch(cross_entropy_kernel, blocks_for(g.rows, kThreads), kThreads, 0, stream, g);
}

template <Device D>
void add_token_losses(const AddTokenLossesArgs& g, Stream& stream) {
  const Span span(stream.profile(), "add_token_losses");
  launch(add_token_losses_kernel, 1, kThreads, 0, stream, g);
}

template <Device D, class A, class G>
void scale_rows(const G* x, const A* factor, int64_t rows, int64_t cols, G* y, Stream& stream) {
  const Span span(stream.profile(), "scale_rows");
  const auto blocks = static_cast<unsigned>(rows);
  launch(fit_lanes(cols, x, y) ? scale_rows_kernel<G, kLanes<G>> : scale_rows_kernel<G, 1>, blocks, kThreads,
         0, stream, x, factor, cols, y);
}

template <Device D, class A>
void add_scaled_rows(const A* x, const A* factor, int64_t rows, int64_t cols, A* y, Stream& stream) {
  const Span span(stream.profile(), "add_scaled_rows");
  start_add_scaled_rows(x, factor, nullptr, 0, nullptr, rows, cols, y, stream);
}

template <Device D, class A, class G>
void subtract_targets(const SubtractTargetsArgs<A, G>& g, Stream& stream) {
  const Span span(stream.profile(), "subtract_targets");
  if (g.dx != nullptr) {
    start_add_scaled_rows(g.weight, nullptr, g.targets, g.ignore_index, g.grad_scale, g.rows, g.cols, g.dx,
                          stream);
  }
  add_rows(Keys{g.targets, 1, g.ignore_index}, g.rows, g.cols, g.x, g.grad_scale, g.dweight, stream);
}

template void softmax_tile<Device::cuda>(const SoftmaxTileArgs<float, float>&, Stream&);
template void softmax_tile<Device::cuda>(const SoftmaxTileArgs<float, bf16>&, Stream&);
template void cross_entropy<Device::cuda>(const CrossEntropyArgs<float>&, Stream&);
template void add_token_losses<Device::cuda>(const AddTokenLossesArgs&, Stream&);
template void scale_rows<Device::cuda>(const float*, const float*, int64_t, int64_t, float*, Stream&);
template void scale_rows<Device::cuda>(const bf16*, const float*, int64_t, int64_t, bf16*, Stream&);
template void add_scaled_rows<Device::cuda>(const float*, const float*, int64_t, int64_t, float*, Stream&);
template void subtract_targets<Device::cuda>(const SubtractTargetsArgs<float, float>&, Stream&);
template void subtract_targets<Device::cuda>(const SubtractTargetsArgs<float, bf16>&, Stream&);

}  // namespace ziggurat::kernels
