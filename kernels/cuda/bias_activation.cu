// A thread has columns of its own, 16 bytes of them, or one where sizes or addresses are no multiple of that,
// and walks down a block of rows: their bias is read once, and their part of the bias's gradient stays in
// registers. Floor: forward 3 rows cols sizeof(T) bytes (2 without either bias or activation, z is not
// written without bias), 10 FLOPs and one exponential a value; backward 3 rows cols sizeof(T) bytes, 20 FLOPs
// and one exponential (with `none` 1 read and 1 FLOP). The exact gelu takes an error function of about 20
// FLOPs. Memory's: at most 6 FLOPs a byte in bf16, where a GPU has 15 and more.
#include <kernels/cuda/device/activation.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>
#include <kernels/cuda/device/partial_sums.h>

#include <ziggurat/kernels/bias_activation.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 128;
constexpr int64_t kRowsOfForward = 8;

__device__ __forceinline__ int64_t rows_end(int64_t begin, int64_t count, int64_t rows) {
  return begin + count < rows ? begin + count : rows;
}

template <class F, class T, int N>
__global__ void __launch_bounds__(kThreads) bias_activation_forward_kernel(BiasActivationArgs<T> g) {
  const int64_t column = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * N;
  if (column >= g.cols) return;
  float bias[N] = {};
  if (g.bias != nullptr) load_floats(g.bias + column, bias);
  const int64_t begin = blockIdx.x * kRowsOfForward, end = rows_end(begin, kRowsOfForward, g.rows);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * g.cols + column;
    Values<T, N> z = load<N>(g.z + at);
    if (g.bias != nullptr) {
#pragma unroll
      for (int i = 0; i < N; ++i) z.v[i] = to_float(rounded<T>(z.v[i] + bias[i]));  // as backward reads it
      store(g.z + at, z);
    }
    if constexpr (!F::kIsIdentity) {
#pragma unroll
      for (int i = 0; i < N; ++i) z.v[i] = F::value(z.v[i]);
      store(g.y + at, z);
    }
  }
}

// dz = dy activation'(z), dbias = sum_i dz, of which this block leaves the sum over its rows
template <class F, class T, int N>
__global__ void __launch_bounds__(kThreads)
    bias_activation_backward_kernel(BiasActivationGradArgs<T> g, float* partial) {
  const int64_t column = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * N;
  if (column >= g.cols) return;
  float sum[N] = {};
  const int64_t begin = blockIdx.x * kRowsOfPartialSum, end = rows_end(begin, kRowsOfPartialSum, g.rows);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * g.cols + column;
    Values<T, N> dz = load<N>(g.dy + at);
    if constexpr (!F::kIsIdentity) {
      const Values<T, N> z = load<N>(g.z + at);
#pragma unroll
      for (int i = 0; i < N; ++i) dz.v[i] = to_float(rounded<T>(dz.v[i] * F::derivative(z.v[i])));
      store(g.dz + at, dz);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += dz.v[i];
  }
  if (partial != nullptr) store_floats(partial + blockIdx.x * g.cols + column, sum);
}

}  // namespace

template <Device D, class T>
void bias_activation_forward(const BiasActivationArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "bias_activation_forward");
  if (g.cols == 0 || (g.activation == Activation::none && g.bias == nullptr)) return;
  constexpr int kN = kLanes<T>;
  const unsigned blocks = blocks_for(g.rows, kRowsOfForward);
  const bool fits = fit_lanes(g.cols, g.z, g.y) && fit_lanes(g.cols, g.bias);
  visit_activation(g.activation, [&]<class F>(F) {
    if (fits) {
      launch(bias_activation_forward_kernel<F, T, kN>, dim3(blocks, blocks_for(g.cols, kThreads * kN)),
             kThreads, 0, stream, g);
    } else {
      launch(bias_activation_forward_kernel<F, T, 1>, dim3(blocks, blocks_for(g.cols, kThreads)), kThreads, 0,
             stream, g);
    }
  });
}

template <Device D, class T>
void bias_activation_backward(const BiasActivationGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "bias_activation_backward");
  if (g.activation == Activation::none && g.dbias == nullptr) return;
  const ArenaScope scope(workspace);
  constexpr int kN = kLanes<T>;
  const unsigned blocks = blocks_for(g.rows, kRowsOfPartialSum);
  float* const partial =
      g.dbias == nullptr ? nullptr : workspace.take_on_device<float>(int64_t{blocks} * g.cols);
  const bool fits = fit_lanes(g.cols, g.z, g.dy, g.dz) && fit_lanes(g.cols, partial);
  visit_activation(g.activation, [&]<class F>(F) {
    if (fits) {
      launch(bias_activation_backward_kernel<F, T, kN>, dim3(blocks, blocks_for(g.cols, kThreads * kN)),
             kThreads, 0, stream, g, partial);
    } else {
      launch(bias_activation_backward_kernel<F, T, 1>, dim3(blocks, blocks_for(g.cols, kThreads)), kThreads,
             0, stream, g, partial);
    }
  });
  add_partial_sums(partial, blocks, g.cols, g.dbias, stream);
}

template void bias_activation_forward<Device::cuda>(const BiasActivationArgs<float>&, Stream&);
template void bias_activation_forward<Device::cuda>(const BiasActivationArgs<bf16>&, Stream&);
template void bias_activation_backward<Device::cuda>(const BiasActivationGradArgs<float>&, Arena&, Stream&);
template void bias_activation_backward<Device::cuda>(const BiasActivationGradArgs<bf16>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
