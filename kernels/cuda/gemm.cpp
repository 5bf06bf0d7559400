// The library's products. On a strict stream every product but A^T B, whose sums run over the rows, is one of
// kStrictTileRows rows after the other with the same algorithm; zeros follow the last rows.
#include <kernels/cuda/lib/matmul.h>

#include <ziggurat/kernels/gemm.h>
#include <ziggurat/runtime/backend.h>
#include <ziggurat/runtime/dry_run.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kStrictTileRows = 128;  // a GPU's largest tiles of a product have as many

template <class T>
constexpr int64_t bytes(int64_t n) {
  return n * static_cast<int64_t>(sizeof(T));
}

template <class T>
void clear(T* x, int64_t n, Stream& stream) {
  if (n > 0 && !DryRun::on()) backend(Device::cuda).fill_zero(x, bytes<T>(n), stream);
}

// Of a matrix [rows, cols], what lies between its rows not among them.
template <class T>
void copy_rows(const T* from, T* to, int64_t rows, int64_t cols, int64_t ld, Stream& stream) {
  if (DryRun::on()) return;
  Backend& cuda = backend(Device::cuda);
  if (ld == cols) return cuda.copy(from, to, bytes<T>(rows * cols), stream);
  for (int64_t i = 0; i < rows; ++i) cuda.copy(from + i * ld, to + i * ld, bytes<T>(cols), stream);
}

// Scratch for a tile of rows like those at `x`: as far apart, and as far from a multiple of an alignment, so
// that the library takes it for such a tile.
template <class T>
T* tile_like(const T* x, int64_t ld, Arena& workspace) {
  constexpr auto kAlignment = static_cast<uintptr_t>(MatmulSpec::kMostAlignment);
  const auto shift = static_cast<int64_t>(reinterpret_cast<uintptr_t>(x) % kAlignment / sizeof(T));
  return workspace.take_on_device<T>(kStrictTileRows * ld + shift) + shift;
}

template <class T, class TC>
void strict_gemm(const GemmArgs<T, TC>& g, Arena& workspace, Stream& stream) {
  GemmArgs<T, TC> tile = g;
  tile.m = kStrictTileRows;
  const int64_t rest = g.m % kStrictTileRows, whole = g.m - rest;
  for (int64_t i = 0; i < whole; i += kStrictTileRows) {
    tile.a = g.a + i * g.lda;
    tile.c = g.c + i * g.ldc;
    multiply(tile, {}, workspace, stream);
  }
  if (rest == 0) return;
  const T* const last_a = g.a + whole * g.lda;
  TC* const last_c = g.c + whole * g.ldc;
  T* const a = tile_like(g.a, g.lda, workspace);
  TC* const c = tile_like(g.c, g.ldc, workspace);
  clear(a, kStrictTileRows * g.lda, stream);
  copy_rows(last_a, a, rest, g.k, g.lda, stream);
  if (g.accumulate) {
    clear(c, kStrictTileRows * g.ldc, stream);
    copy_rows(static_cast<const TC*>(last_c), c, rest, g.n, g.ldc, stream);
  }
  tile.a = a;
  tile.c = c;
  multiply(tile, {}, workspace, stream);
  copy_rows(static_cast<const TC*>(c), last_c, rest, g.n, g.ldc, stream);
}

}  // namespace

template <Device D, class T, class TC>
void gemm(const GemmArgs<T, TC>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "gemm");
  if (g.m == 0 || g.n == 0) return;
  const ArenaScope scope(workspace);
  if (g.k == 0) {  // which the library refuses
    for (int64_t i = 0; i < g.m && !g.accumulate; ++i) clear(g.c + i * g.ldc, g.n, stream);
  } else if (stream.strict() && !g.transpose_a) {
    strict_gemm(g, workspace, stream);
  } else {
    multiply(g, {}, workspace, stream);
  }
}

template void gemm<Device::cuda>(const GemmArgs<float, float>&, Arena&, Stream&);
template void gemm<Device::cuda>(const GemmArgs<bf16, bf16>&, Arena&, Stream&);
template void gemm<Device::cuda>(const GemmArgs<bf16, float>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
