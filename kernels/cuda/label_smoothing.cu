// Column sums go by strips of rows whose sums are added up in order, a thread a column; a block takes a row
// of x; the head's gradient is walked over once, and the rows of targets once more (device/add_rows.h).
// Floor: memory; one read of the weight and of x (x twice where the weight learns), one read and write of the
// weight's gradient, dx. 3 FLOPs a value, of sums in double.
#include <kernels/cuda/device/add_rows.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/label_smoothing.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;
constexpr int64_t kStrip = 64;  // rows

// partial [strips, cols] = sums over the strip's rows, of x those that count.
template <class T>
__global__ void __launch_bounds__(kThreads)
    column_sums_kernel(const T* m, int64_t rows, int64_t cols, const int32_t* targets, int32_t ignore_index,
                       double* partial) {
  const int64_t j = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (j >= cols) return;
  const int64_t begin = blockIdx.x * kStrip, end = min(begin + kStrip, rows);
  double sum = 0;
  for (int64_t i = begin; i < end; ++i) {
    if (targets == nullptr || targets[i] != ignore_index)
      sum += static_cast<double>(to_float(m[i * cols + j]));
  }
  partial[blockIdx.x * cols + j] = sum;
}

// mean [cols] = sum of partial / divisor
__global__ void __launch_bounds__(kThreads)
    column_means_kernel(const double* partial, int64_t strips, int64_t cols, double divisor, double* mean) {
  const int64_t j = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (j >= cols) return;
  double sum = 0;
  for (int64_t strip = 0; strip < strips; ++strip) sum += partial[strip * cols + j];
  mean[j] = sum / divisor;
}

// values [rows] = x_i . (W_t - mean of W), and dx.
template <class T>
__global__ void __launch_bounds__(kThreads)
    smoothed_rows_kernel(LabelSmoothingArgs<T> g, const double* mean, double* values) {
  const int64_t i = blockIdx.x;
  const bool counts = g.targets[i] != g.ignore_index;
  const int32_t target = g.own_targets[i];
  if (!counts && (g.dx == nullptr || g.accumulate_dx)) {
    if (threadIdx.x == 0) values[i] = 0;
    return;
  }
  const bool own = target != g.elsewhere;
  const T *const x = g.x + i * g.cols, *const of_target = g.weight + (own ? target : 0) * g.cols;
  const double scale = g.dx == nullptr ? 0 : g.epsilon * *g.grad_scale;
  double value = 0;
  for (int64_t j = threadIdx.x; j < g.cols; j += kThreads) {
    const double above = !counts ? 0 : (own ? static_cast<double>(to_float(of_target[j])) : 0) - mean[j];
    if (counts) value += static_cast<double>(to_float(x[j])) * above;
    if (g.dx != nullptr) {
      write(g.dx + i * g.cols + j, g.accumulate_dx, Values<T, 1>{{static_cast<float>(scale * above)}});
    }
  }
  value = block_sum<kThreads>(value);
  if (threadIdx.x == 0) values[i] = value;
}

__global__ void __launch_bounds__(kThreads)
    smoothed_sum_kernel(const double* values, int64_t rows, double epsilon, double* sum) {
  double all = 0;
  for (int64_t i = threadIdx.x; i < rows; i += kThreads) all += values[i];
  all = block_sum<kThreads>(all);
  if (threadIdx.x == 0) *sum = epsilon * all;
}

// dweight of every row -= epsilon scale mean of x over the vocabulary; and *factor = -epsilon scale, what
// add_rows takes away the rows of x with.
__global__ void __launch_bounds__(kThreads)
    subtract_from_all_kernel(float* dweight, int64_t n, int64_t cols, const double* mean, double epsilon,
                             const double* grad_scale, double* factor) {
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const double scale = epsilon * *grad_scale;
  if (at == 0) *factor = -scale;
  if (at < n) dweight[at] -= static_cast<float>(scale * mean[at % cols]);
}

template <class T>
void column_means(const T* m, int64_t rows, int64_t cols, const int32_t* targets, int32_t ignore_index,
                  double divisor, double* mean, Arena& workspace, Stream& stream) {
  const ArenaScope scope(workspace);
  const unsigned strips = blocks_for(rows, kStrip), columns = blocks_for(cols, kThreads);
  auto* const partial = workspace.take_on_device<double>(int64_t{strips} * cols);
  launch(column_sums_kernel<T>, dim3(strips, columns), kThreads, 0, stream, m, rows, cols, targets,
         ignore_index, partial);
  launch(column_means_kernel, columns, kThreads, 0, stream, partial, int64_t{strips}, cols, divisor, mean);
}

}  // namespace

template <Device D, class T>
void label_smoothing(const LabelSmoothingArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "label_smoothing");
  const ArenaScope scope(workspace);
  auto* const weights = workspace.take_on_device<double>(g.cols);
  auto* const inputs = workspace.take_on_device<double>(g.cols);
  auto* const values = workspace.take_on_device<double>(g.rows);
  auto* const factor = workspace.take_on_device<double>(1);
  const auto words = static_cast<double>(g.words);
  column_means<T>(g.weight, g.vocabulary, g.cols, nullptr, 0, words, weights, workspace, stream);
  launch(smoothed_rows_kernel<T>, static_cast<unsigned>(g.rows), kThreads, 0, stream, g, weights, values);
  launch(smoothed_sum_kernel, 1, kThreads, 0, stream, values, g.rows, g.epsilon, g.sum);
  if (g.dweight == nullptr) return;
  column_means<T>(g.x, g.rows, g.cols, g.targets, g.ignore_index, words, inputs, workspace, stream);
  const int64_t n = g.vocabulary * g.cols;
  launch(subtract_from_all_kernel, blocks_for(n, kThreads), kThreads, 0, stream, g.dweight, n, g.cols, inputs,
         g.epsilon, g.grad_scale, factor);
  add_rows(Keys{.keys = g.own_targets, .none = g.elsewhere}, g.rows, g.cols, g.x, factor, g.dweight, stream);
}

template void label_smoothing<Device::cuda>(const LabelSmoothingArgs<float>&, Arena&, Stream&);
template void label_smoothing<Device::cuda>(const LabelSmoothingArgs<bf16>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
