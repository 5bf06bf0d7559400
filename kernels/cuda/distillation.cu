// A block a row of a tile, as softmax_tile has it: 16 bytes a thread at a time, or one value where sizes or
// addresses are no multiple of that. Floor: memory; add_exponentials 4 rows cols bytes, distillation_tile
// rows stride (8 + sizeof(G)); 3 FLOPs and one exponential a value, about 8 and two (three at a temperature).
// join_exponentials reads 12 bytes a row of every part twice, and writes 12.
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/logits.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/distillation.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;

template <int N>
__global__ void __launch_bounds__(kThreads) add_exponentials_kernel(AddExponentialsArgs<float> g) {
  const int64_t row = blockIdx.x;
  const float* logits = g.logits + row * g.stride;
  const auto scale = static_cast<float>(g.scale);
  float values[N];
  float max = Maximum::kNeutral<float>;
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    load_logits(logits, j, g.cols, values);
#pragma unroll
    for (int i = 0; i < N; ++i) max = fmaxf(max, scale * values[i]);
  }
  max = block_max<kThreads>(max);
  const float before = g.first ? Maximum::kNeutral<float> : g.sums.maximum[row];
  max = fmaxf(max, before);
  float sum = 0;
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    load_logits(logits, j, g.cols, values);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += expf(scale * values[i] - max);
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x > 0) return;
  double all = static_cast<double>(sum);
  if (!g.first) all += g.sums.sum[row] * exp(static_cast<double>(before) - static_cast<double>(max));
  g.sums.maximum[row] = max;
  g.sums.sum[row] = all;
}

// A thread a row.
__global__ void __launch_bounds__(kThreads) join_exponentials_kernel(JoinExponentialsArgs<float> g) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= g.rows) return;
  float max = Maximum::kNeutral<float>;
  for (int64_t at = row; at < g.parts * g.rows; at += g.rows) {
    if (g.of_parts.sum[at] != 0) max = fmaxf(max, g.of_parts.maximum[at]);
  }
  double sum = 0;
  for (int64_t at = row; at < g.parts * g.rows; at += g.rows) {
    const double its = g.of_parts.sum[at];
    if (its != 0) sum += its * exp(static_cast<double>(g.of_parts.maximum[at] - max));
  }
  g.sums.maximum[row] = max;
  g.sums.sum[row] = sum;
}

__device__ __forceinline__ double log_of(const ExponentialSums<float>& sums, int64_t row) {
  return static_cast<double>(sums.maximum[row]) + log(sums.sum[row]);
}

template <class G, int N>
__global__ void __launch_bounds__(kThreads) distillation_tile_kernel(DistillationTileArgs<float, G> g) {
  const int64_t row = blockIdx.x, first = row * g.stride;
  const bool counted = g.targets[row] != g.ignore_index;
  const double lse = g.losses[row].cross_entropy + static_cast<double>(g.target_logit[row]);
  const bool scaled = g.of_student.sum != nullptr;
  const auto scale = static_cast<float>(g.scale), lse_z = static_cast<float>(lse),
             lse_p = static_cast<float>(log_of(g.of_teacher, row)),
             lse_q = scaled ? static_cast<float>(log_of(g.of_student, row)) : lse_z,
             of_softmax = static_cast<float>(*g.grad_scale * (1 + 2 * g.z_loss * lse)),
             of_difference = static_cast<float>(*g.grad_scale * *g.weight / g.scale);
  float sum = 0;
  const int64_t end = g.gradient == nullptr ? g.cols : g.stride;
  for (int64_t j = threadIdx.x * N; j < end; j += kThreads * N) {
    float z[N], t[N];
    load_logits(g.student + first, j, g.cols, z);
    load_logits(g.teacher + row * g.teacher_stride, j, g.cols, t);
    Values<G, N> gradient;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      gradient.v[i] = 0.0f;
      if (!counted || j + i >= g.cols) continue;
      const float log_p = scale * t[i] - lse_p, log_q = scale * z[i] - lse_q, p = expf(log_p),
                  q = expf(log_q);
      sum += p * (log_p - log_q);
      gradient.v[i] = of_softmax * (scaled ? expf(z[i] - lse_z) : q) + of_difference * (q - p);
    }
    if (g.gradient != nullptr) store(g.gradient + first + j, gradient);
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) g.divergence[row] = static_cast<double>(sum) + (g.first ? 0 : g.divergence[row]);
}

__global__ void __launch_bounds__(kThreads) add_divergences_kernel(AddDivergencesArgs g) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < g.rows; i += kThreads) sum += g.divergence[i];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) *g.sum += *g.weight * g.factor * sum;
}

}  // namespace

template <Device D, class A>
void add_exponentials(const AddExponentialsArgs<A>& g, Stream& stream) {
  const Span span(stream.profile(), "add_exponentials");
  launch(fit_lanes(g.stride, g.logits) ? add_exponentials_kernel<kLanes<float>> : add_exponentials_kernel<1>,
         static_cast<unsigned>(g.rows), kThreads, 0, stream, g);
}

template <Device D, class A>
void join_exponentials(const JoinExponentialsArgs<A>& g, Stream& stream) {
  const Span span(stream.profile(), "join_exponentials");
  launch(join_exponentials_kernel, blocks_for(g.rows, kThreads), kThreads, 0, stream, g);
}

template <Device D, class A, class G>
void distillation_tile(const DistillationTileArgs<A, G>& g, Stream& stream) {
  const Span span(stream.profile(), "distillation_tile");
  const bool fits = fit_lanes(g.stride, g.student) && fit_lanes(g.teacher_stride, g.teacher) &&
                    fit_lanes(g.stride, g.gradient);
  launch(fits ? distillation_tile_kernel<G, kLanes<G>> : distillation_tile_kernel<G, 1>,
         static_cast<unsigned>(g.rows), kThreads, 0, stream, g);
}

template <Device D>
void add_divergences(const AddDivergencesArgs& g, Stream& stream) {
  const Span span(stream.profile(), "add_divergences");
  launch(add_divergences_kernel, 1, kThreads, 0, stream, g);
}

template void add_exponentials<Device::cuda>(const AddExponentialsArgs<float>&, Stream&);
template void join_exponentials<Device::cuda>(const JoinExponentialsArgs<float>&, Stream&);
template void distillation_tile<Device::cuda>(const DistillationTileArgs<float, float>&, Stream&);
template void distillation_tile<Device::cuda>(const DistillationTileArgs<float, bf16>&, Stream&);
template void add_divergences<Device::cuda>(const AddDivergencesArgs&, Stream&);

}  // namespace ziggurat::kernels
