#include <algorithm>
#include <cmath>

#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/muon.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kBlock = 16384;
constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315, kLeastNorm = 1e-7;

// In blocks of a fixed size, added up in their order.
template <class T>
double norm(const T* x, int64_t n, Arena& workspace) {
  const ArenaScope scope(workspace);
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  auto* const sums = workspace.take<double>(blocks);
  parallel_for_blocks(n, kBlock, [&](int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t i = begin; i < end; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    sums[begin / kBlock] = sum;
  });
  double total = 0;
  for (int64_t i = 0; i < blocks; ++i) total += sums[i];
  return std::sqrt(total);
}

// x [rows, cols] towards the nearest orthogonal matrix. `other` is of its size; s and t of the smaller
// side's.
template <Device D, class T>
void orthogonalise(int64_t rows, int64_t cols, int64_t iterations, T* x, T* other, T* s, T* t,
                   Arena& workspace, Stream& stream) {
  const bool wide = rows <= cols;
  const int64_t n = std::min(rows, cols), m = std::max(rows, cols);
  for (int64_t i = 0; i < iterations; ++i) {
    gemm<D>(GemmArgs<T, T>{!wide, wide, n, n, m, x, cols, x, cols, s, n}, workspace, stream);  // symmetric
    gemm<D>(GemmArgs<T, T>{false, false, n, n, n, s, n, s, n, t, n}, workspace, stream);
    if (!DryRun::on()) {
      parallel_for_blocks(n * n, kBlock, [&](int64_t begin, int64_t end) {
        for (int64_t e = begin; e < end; ++e) t[e] = T(kB) * s[e] + T(kC) * t[e];
      });
      parallel_for_blocks(rows * cols, kBlock, [&](int64_t begin, int64_t end) {
        for (int64_t e = begin; e < end; ++e) other[e] = T(kA) * x[e];
      });
    }
    if (wide) {
      gemm<D>(GemmArgs<T, T>{false, false, n, m, n, t, n, x, cols, other, cols, true}, workspace, stream);
    } else {
      gemm<D>(GemmArgs<T, T>{false, false, m, n, n, x, cols, t, n, other, cols, true}, workspace, stream);
    }
    if (!DryRun::on()) std::copy_n(other, rows * cols, x);
  }
}

}  // namespace

template <Device D, class T>
void muon_update(const MuonArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "muon_update");
  const ArenaScope scope(workspace);
  const int64_t elements = g.rows * g.cols, side = std::min(g.rows, g.cols);
  T* const x = workspace.take<T>(elements);
  T* const other = workspace.take<T>(elements);
  T* const s = workspace.take<T>(side * side);
  T* const t = workspace.take<T>(side * side);
  const bool runs = !DryRun::on();
  if (runs && !std::isfinite(*g.grad_scale)) return;
  if (runs) {
    const T scale = T(*g.grad_scale), momentum = T(g.momentum);
    parallel_for_blocks(elements, kBlock, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const T grad = scale * g.gradient[i];
        g.moment[i] = momentum * g.moment[i] + grad;
        x[i] = g.nesterov ? grad + momentum * g.moment[i] : g.moment[i];
      }
    });
    const T inverse = T(1 / (norm(x, elements, workspace) + kLeastNorm));
    parallel_for_blocks(elements, kBlock, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) x[i] *= inverse;
    });
  }
  orthogonalise<D>(g.rows, g.cols, g.iterations, x, other, s, t, workspace, stream);
  if (!runs) return;
  const T keep = T(1 - g.lr * g.weight_decay), length = T(g.length);
  parallel_for_blocks(elements, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      g.master[i] = keep * g.master[i] - length * x[i];
      if (g.compute != nullptr) g.compute[i] = bf16(static_cast<float>(g.master[i]));
    }
  });
}

template void muon_update<Device::cpu>(const MuonArgs<float>&, Arena&, Stream&);
template void muon_update<Device::cpu>(const MuonArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
