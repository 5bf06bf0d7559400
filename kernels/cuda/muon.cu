// The matrix library's products, and between them passes over the matrices, one value a thread, neighbours by
// neighbouring threads. Floor: the products'; the passes move 16 n m bytes for the momentum, and in an
// iteration 8 n m and 12 n^2 besides, where the products have 4 n^2 m + 2 n^3 FLOPs: with n of some hundred
// the passes already take less.
#include <algorithm>
#include <utility>

#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/device/number.h>

#include <ziggurat/kernels/adamw.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/muon.h>

namespace ziggurat::kernels {

namespace {

constexpr int kThreads = 256;
constexpr float kA = 3.4445f, kB = -4.7750f, kC = 2.0315f;
constexpr double kLeastNorm = 1e-7;

__device__ __forceinline__ int64_t element() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }

// moment, and x = what is to be made orthogonal. Without a finite clip factor x holds anything, and nobody
// will use it.
__global__ void __launch_bounds__(kThreads)
    muon_momentum_kernel(MuonArgs<float> g, float momentum, float* x) {
  const int64_t i = element();
  if (i >= g.rows * g.cols || !is_finite(*g.grad_scale)) return;
  const float grad = static_cast<float>(*g.grad_scale) * g.gradient[i];
  const float m = momentum * g.moment[i] + grad;
  g.moment[i] = m;
  x[i] = g.nesterov ? grad + momentum * m : m;
}

__global__ void __launch_bounds__(kThreads)
    muon_normalise_kernel(float* x, int64_t n, const double* squares) {
  const int64_t i = element();
  if (i < n) x[i] *= static_cast<float>(1 / (sqrt(*squares) + kLeastNorm));
}

// y = factor x
__global__ void __launch_bounds__(kThreads)
    muon_scale_kernel(const float* x, float factor, float* y, int64_t n) {
  const int64_t i = element();
  if (i < n) y[i] = factor * x[i];
}

// t = b s + c t
__global__ void __launch_bounds__(kThreads) muon_polynomial_kernel(const float* s, float* t, int64_t n) {
  const int64_t i = element();
  if (i < n) t[i] = kB * s[i] + kC * t[i];
}

__global__ void __launch_bounds__(kThreads)
    muon_update_kernel(MuonArgs<float> g, float keep, const float* x) {
  const int64_t i = element();
  if (i >= g.rows * g.cols || !is_finite(*g.grad_scale)) return;
  const float p = keep * g.master[i] - static_cast<float>(g.length) * x[i];
  g.master[i] = p;
  if (g.compute != nullptr) g.compute[i] = rounded<bf16>(p);
}

// The products of an iteration, on the smaller side.
template <Device D>
struct Products {
  int64_t rows, cols;
  Arena& workspace;
  Stream& stream;
  bool wide = rows <= cols;
  int64_t n = std::min(rows, cols), m = std::max(rows, cols);

  using Args = GemmArgs<float, float>;
  void squared(const float* x, float* s) const {  // x x^T, or x^T x
    gemm<D>(Args{!wide, wide, n, n, m, x, cols, x, cols, s, n}, workspace, stream);
  }
  void of_squares(const float* s, float* t) const {  // s s
    gemm<D>(Args{false, false, n, n, n, s, n, s, n, t, n}, workspace, stream);
  }
  void add(const float* t, const float* x, float* y) const {  // y += t x, or x t
    if (wide) {
      gemm<D>(Args{false, false, n, m, n, t, n, x, cols, y, cols, true}, workspace, stream);
    } else {
      gemm<D>(Args{false, false, m, n, n, x, cols, t, n, y, cols, true}, workspace, stream);
    }
  }
};

}  // namespace

template <Device D, class T>
void muon_update(const MuonArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "muon_update");
  const ArenaScope scope(workspace);
  const int64_t elements = g.rows * g.cols, side = std::min(g.rows, g.cols);
  auto* x = workspace.take_on_device<float>(elements);
  auto* other = workspace.take_on_device<float>(elements);
  auto* const s = workspace.take_on_device<float>(side * side);
  auto* const t = workspace.take_on_device<float>(side * side);
  auto* const squares = workspace.take_on_device<double>(1);
  const unsigned all = blocks_for(elements, kThreads), of_side = blocks_for(side * side, kThreads);

  launch(muon_momentum_kernel, all, kThreads, 0, stream, g, static_cast<float>(g.momentum), x);
  sum_of_squares<D>(x, elements, squares, workspace, stream);
  launch(muon_normalise_kernel, all, kThreads, 0, stream, x, elements, squares);
  const Products<D> products{g.rows, g.cols, workspace, stream};
  for (int64_t i = 0; i < g.iterations; ++i) {
    products.squared(x, s);
    products.of_squares(s, t);
    launch(muon_polynomial_kernel, of_side, kThreads, 0, stream, s, t, side * side);
    launch(muon_scale_kernel, all, kThreads, 0, stream, x, kA, other, elements);
    products.add(t, x, other);
    std::swap(x, other);
  }
  launch(muon_update_kernel, all, kThreads, 0, stream, g, static_cast<float>(1 - g.lr * g.weight_decay), x);
}

template void muon_update<Device::cuda>(const MuonArgs<float>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
