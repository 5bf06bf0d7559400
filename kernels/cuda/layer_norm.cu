// Forward: a block normalises one row, 16 bytes a thread at a time, or one value where sizes or addresses are
// no multiple of that; the second and third time a row is read it comes from the cache (the variance is that
// of the differences from the mean, as on the CPU). Backward: a block takes 32 rows one after the other, and
// keeps the parameters' gradients of its columns in shared memory. Floor: forward 2 rows cols sizeof(T) bytes
// and 7 FLOPs a value, backward 3 rows cols sizeof(T) bytes (1 more where dx is added to) and 14 FLOPs a
// value. Memory's.
#include <kernels/cuda/device/dynamic_shared.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/partial_sums.h>
#include <kernels/cuda/device/reduce.h>

#include <ziggurat/kernels/layer_norm.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;

template <class T, int N>
__global__ void __launch_bounds__(kThreads) layer_norm_forward_kernel(LayerNormArgs<T> g) {
  const int64_t row = blockIdx.x, first = row * g.cols;
  const auto n = static_cast<float>(g.cols);
  float sum = 0;
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    const Values<T, N> x = load<N>(g.x + first + j);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += x.v[i];
  }
  const float mean = block_sum<kThreads>(sum) / n;
  float square = 0;
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    const Values<T, N> x = load<N>(g.x + first + j);
#pragma unroll
    for (int i = 0; i < N; ++i) square += (x.v[i] - mean) * (x.v[i] - mean);
  }
  const float rstd = 1.0f / sqrtf(block_sum<kThreads>(square) / n + g.eps);
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    const Values<T, N> x = load<N>(g.x + first + j);
    float weight[N], bias[N];
    load_floats(g.weight + j, weight);
    load_floats(g.bias + j, bias);
    Values<T, N> y;
#pragma unroll
    for (int i = 0; i < N; ++i) y.v[i] = (x.v[i] - mean) * rstd * weight[i] + bias[i];
    store(g.y + first + j, y);
  }
  if (threadIdx.x == 0) {
    g.mean[row] = mean;
    g.rstd[row] = rstd;
  }
}

// With xhat = (x - mean) rstd and v = dy weight:
//   dx = rstd (v - mean_j(v) - xhat mean_j(v xhat)), dweight = sum_i dy xhat, dbias = sum_i dy
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    layer_norm_backward_kernel(LayerNormGradArgs<T> g, float* partial_dweight, float* partial_dbias) {
  // [cols] each; each thread's columns are its own
  float *const dweight = dynamic_shared<float>(), *const dbias = dweight + g.cols;
  const bool sums = partial_dweight != nullptr;
  const int64_t begin = blockIdx.x * kRowsOfPartialSum;
  const int64_t end = begin + kRowsOfPartialSum < g.rows ? begin + kRowsOfPartialSum : g.rows;
  if (sums) {
    for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
#pragma unroll
      for (int i = 0; i < N; ++i) dweight[j + i] = dbias[j + i] = 0;
    }
  }
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * g.cols;
    const float mean = g.mean[row], rstd = g.rstd[row];
    float v = 0, vx = 0;
    for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
      const Values<T, N> x = load<N>(g.x + first + j), dy = load<N>(g.dy + first + j);
      float weight[N];
      load_floats(g.weight + j, weight);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float xhat = (x.v[i] - mean) * rstd, scaled = dy.v[i] * weight[i];
        v += scaled;
        vx += scaled * xhat;
        if (sums) {
          dweight[j + i] += dy.v[i] * xhat;
          dbias[j + i] += dy.v[i];
        }
      }
    }
    if (g.dx == nullptr) continue;
    const float v_mean = block_sum<kThreads>(v) / static_cast<float>(g.cols);
    const float vx_mean = block_sum<kThreads>(vx) / static_cast<float>(g.cols);
    for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
      const Values<T, N> x = load<N>(g.x + first + j), dy = load<N>(g.dy + first + j);
      float weight[N];
      load_floats(g.weight + j, weight);
      Values<T, N> dx;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        dx.v[i] = rstd * (dy.v[i] * weight[i] - v_mean - (x.v[i] - mean) * rstd * vx_mean);
      }
      write(g.dx + first + j, g.accumulate_dx, dx);
    }
  }
  if (!sums) return;
  for (int64_t j = threadIdx.x * N; j < g.cols; j += kThreads * N) {
    float of_block[N];
    load_floats(dweight + j, of_block);
    store_floats(partial_dweight + blockIdx.x * g.cols + j, of_block);
    load_floats(dbias + j, of_block);
    store_floats(partial_dbias + blockIdx.x * g.cols + j, of_block);
  }
}

}  // namespace

template <Device D, class T>
void layer_norm_forward(const LayerNormArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "layer_norm_forward");
  const auto rows = static_cast<unsigned>(g.rows);
  launch(fit_lanes(g.cols, g.x, g.y) && fit_lanes(g.cols, g.weight, g.bias)
             ? layer_norm_forward_kernel<T, kLanes<T>>
             : layer_norm_forward_kernel<T, 1>,
         rows, kThreads, 0, stream, g);
}

template <Device D, class T>
void layer_norm_backward(const LayerNormGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "layer_norm_backward");
  const ArenaScope scope(workspace);
  const unsigned blocks = blocks_for(g.rows, kRowsOfPartialSum);
  float *dweight = nullptr, *dbias = nullptr;
  size_t shared = 0;
  if (g.dweight != nullptr || g.dbias != nullptr) {
    dweight = workspace.take_on_device<float>(int64_t{blocks} * g.cols);
    dbias = workspace.take_on_device<float>(int64_t{blocks} * g.cols);
    shared = 2 * static_cast<size_t>(g.cols) * sizeof(float);
  }
  launch(fit_lanes(g.cols, g.x, g.dy, g.dx) && fit_lanes(g.cols, g.weight)
             ? layer_norm_backward_kernel<T, kLanes<T>>
             : layer_norm_backward_kernel<T, 1>,
         blocks, kThreads, shared, stream, g, dweight, dbias);
  add_partial_sums(dweight, blocks, g.cols, g.dweight, stream);
  add_partial_sums(dbias, blocks, g.cols, g.dbias, stream);
}

template void layer_norm_forward<Device::cuda>(const LayerNormArgs<float>&, Stream&);
template void layer_norm_forward<Device::cuda>(const LayerNormArgs<bf16>&, Stream&);
template void layer_norm_backward<Device::cuda>(const LayerNormGradArgs<float>&, Arena&, Stream&);
template void layer_norm_backward<Device::cuda>(const LayerNormGradArgs<bf16>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
