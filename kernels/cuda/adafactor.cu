// Three passes over the matrix: squares of the gradient into their factors (or, where these are not kept, the
// squares themselves), the lengths of update and weights, the update. A block takes a strip of rows and a
// thread every kThreads'th column of it, so that neighbours read neighbours; sums of a strip's rows lie in
// registers, those of its columns go to memory as an eighth of the strip's bytes and are added up in order.
// Sums are double, elements f32. Floor: memory; factored 24 bytes a value (the gradient read three times, the
// weights read twice and written) and 1 for the strips' columns, else 36; 10 FLOPs, a root and a division a
// value.
#include <algorithm>
#include <cmath>

#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/adafactor.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kStrip = 16;              // rows
constexpr float kLeastSquare = 1e-30f;  // so that a gradient of zeros divides by something

// What one update needs besides its arguments, in the device's memory.
struct Scratch {
  double* columns;   // [strips, cols] sums of squares
  double* lengths;   // [strips, 2] sums of squares of updates and weights
  double* mean_row;  // [1]
  double* length;    // [1] of a step, from all lengths
};

struct Strip {
  __device__ explicit Strip(const AdafactorArgs<float>& g)
      : begin(int64_t{blockIdx.x} * kStrip), rows(static_cast<int>(min(int64_t{kStrip}, g.rows - begin))) {}
  int64_t begin;
  int rows;
};

__device__ __forceinline__ double moved(float from, double beta, double to) {
  return beta * static_cast<double>(from) + (1 - beta) * to;
}

__global__ void __launch_bounds__(kThreads)
    adafactor_squares_kernel(AdafactorArgs<float> g, double beta, double* columns) {
  if (!is_finite(*g.grad_scale)) return;
  const auto scale = static_cast<float>(*g.grad_scale);
  const Strip strip(g);
  double of_row[kStrip] = {};
  for (int64_t j = threadIdx.x; j < g.cols; j += kThreads) {
    double of_column = 0;
#pragma unroll
    for (int i = 0; i < kStrip; ++i) {
      if (i >= strip.rows) break;
      const float grad = scale * g.gradient[(strip.begin + i) * g.cols + j];
      const auto square = static_cast<double>(grad * grad + kLeastSquare);
      of_row[i] += square;
      of_column += square;
    }
    columns[blockIdx.x * g.cols + j] = of_column;
  }
#pragma unroll
  for (int i = 0; i < kStrip; ++i) {
    const double sum = block_sum<kThreads>(of_row[i]);
    if (threadIdx.x != 0 || i >= strip.rows) continue;
    float& row = g.row_squares[strip.begin + i];
    row = static_cast<float>(moved(row, beta, sum / static_cast<double>(g.cols)));
  }
}

__global__ void __launch_bounds__(kThreads)
    adafactor_columns_kernel(AdafactorArgs<float> g, double beta, const double* columns, int64_t strips) {
  const int64_t j = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (j >= g.cols || !is_finite(*g.grad_scale)) return;
  double sum = 0;
  for (int64_t strip = 0; strip < strips; ++strip) sum += columns[strip * g.cols + j];
  g.col_squares[j] = static_cast<float>(moved(g.col_squares[j], beta, sum / static_cast<double>(g.rows)));
}

__global__ void __launch_bounds__(kThreads)
    adafactor_mean_row_kernel(const float* row_squares, int64_t rows, double* mean_row) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < rows; i += kThreads) sum += static_cast<double>(row_squares[i]);
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) *mean_row = sum / static_cast<double>(rows);
}

// Not factored: the squares of all elements.
__global__ void __launch_bounds__(kThreads) adafactor_elements_kernel(AdafactorArgs<float> g, double beta) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= g.rows * g.cols || !is_finite(*g.grad_scale)) return;
  const float grad = static_cast<float>(*g.grad_scale) * g.gradient[i];
  g.squares[i] =
      static_cast<float>(moved(g.squares[i], beta, static_cast<double>(grad * grad + kLeastSquare)));
}

// u of the elements of row i, before it is clipped.
struct RowUpdate {
  __device__ RowUpdate(const AdafactorArgs<float>& args, const double* mean_row, int64_t row)
      : g(args),
        first(row * args.cols),
        scale(static_cast<float>(*args.grad_scale)),
        of_row(args.squares == nullptr ? static_cast<float>(args.row_squares[row] / *mean_row) : 0.0f) {}
  __device__ float operator[](int64_t j) const {
    const float v = g.squares == nullptr ? of_row * g.col_squares[j] : g.squares[first + j];
    return scale * g.gradient[first + j] / sqrtf(v);
  }
  const AdafactorArgs<float>& g;
  int64_t first;
  float scale, of_row;
};

__global__ void __launch_bounds__(kThreads)
    adafactor_lengths_kernel(AdafactorArgs<float> g, Scratch scratch) {
  if (!is_finite(*g.grad_scale)) return;
  const Strip strip(g);
  double u2 = 0, p2 = 0;
  for (int i = 0; i < strip.rows; ++i) {
    const RowUpdate update(g, scratch.mean_row, strip.begin + i);
    for (int64_t j = threadIdx.x; j < g.cols; j += kThreads) {
      const auto u = static_cast<double>(update[j]), p = static_cast<double>(g.master[update.first + j]);
      u2 += u * u;
      p2 += p * p;
    }
  }
  u2 = block_sum<kThreads>(u2);
  p2 = block_sum<kThreads>(p2);
  if (threadIdx.x != 0) return;
  scratch.lengths[2 * blockIdx.x] = u2;
  scratch.lengths[2 * blockIdx.x + 1] = p2;
}

__global__ void __launch_bounds__(kThreads)
    adafactor_length_kernel(AdafactorArgs<float> g, Scratch scratch, int64_t strips) {
  double u2 = 0, p2 = 0;
  for (int64_t i = threadIdx.x; i < strips; i += kThreads) {
    u2 += scratch.lengths[2 * i];
    p2 += scratch.lengths[2 * i + 1];
  }
  u2 = block_sum<kThreads>(u2);
  p2 = block_sum<kThreads>(p2);
  if (threadIdx.x != 0) return;
  const auto elements = static_cast<double>(g.rows * g.cols);
  const double rms_u = sqrt(u2 / elements), rms_p = sqrt(p2 / elements);
  *scratch.length = g.lr * fmax(g.least_scale, rms_p) / fmax(1.0, rms_u / g.clip);
}

__global__ void __launch_bounds__(kThreads) adafactor_update_kernel(AdafactorArgs<float> g, Scratch scratch) {
  if (!is_finite(*g.grad_scale)) return;
  const Strip strip(g);
  const auto keep = static_cast<float>(1 - g.lr * g.weight_decay);
  const auto length = static_cast<float>(*scratch.length);
  for (int i = 0; i < strip.rows; ++i) {
    const RowUpdate update(g, scratch.mean_row, strip.begin + i);
#pragma unroll 1  // else registers of several divisions are spilled
    for (int64_t j = threadIdx.x; j < g.cols; j += kThreads) {
      const int64_t at = update.first + j;
      const float p = keep * g.master[at] - length * update[j];
      g.master[at] = p;
      if (g.compute != nullptr) g.compute[at] = rounded<bf16>(p);
    }
  }
}

}  // namespace

template <Device D, class T>
void adafactor_update(const AdafactorArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "adafactor_update");
  const ArenaScope scope(workspace);
  const bool factored = g.squares == nullptr;
  const unsigned strips = g.cols == 0 ? 0 : blocks_for(g.rows, kStrip);
  const double beta = 1 - std::pow(static_cast<double>(g.step), -g.decay_exponent);
  const Scratch scratch{workspace.take_on_device<double>(factored ? int64_t{strips} * g.cols : 0),
                        workspace.take_on_device<double>(2 * int64_t{strips}),
                        workspace.take_on_device<double>(1), workspace.take_on_device<double>(1)};
  if (factored) {
    launch(adafactor_squares_kernel, strips, kThreads, 0, stream, g, beta, scratch.columns);
    launch(adafactor_columns_kernel, blocks_for(g.cols, kThreads), kThreads, 0, stream, g, beta,
           scratch.columns, int64_t{strips});
    launch(adafactor_mean_row_kernel, 1, kThreads, 0, stream, g.row_squares, g.rows, scratch.mean_row);
  } else {
    launch(adafactor_elements_kernel, blocks_for(g.rows * g.cols, kThreads), kThreads, 0, stream, g, beta);
  }
  launch(adafactor_lengths_kernel, strips, kThreads, 0, stream, g, scratch);
  launch(adafactor_length_kernel, 1, kThreads, 0, stream, g, scratch, int64_t{strips});
  launch(adafactor_update_kernel, strips, kThreads, 0, stream, g, scratch);
}

template void adafactor_update<Device::cuda>(const AdafactorArgs<float>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
