#include <algorithm>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include <kernels/cpu/matmul.h>
#include <kernels/cpu/operand_copies.h>
#include <kernels/cpu/strict_rows.h>

#include <ziggurat/build_config.h>
#include <ziggurat/core/error.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/runtime/parallel_for.h>

// Exported by oneDNN 2.6 but missing from its headers.
extern "C" dnnl_status_t dnnl_gemm_bf16bf16f32(char transa, char transb, dnnl_dim_t m, dnnl_dim_t n,
                                               dnnl_dim_t k, float alpha, const uint16_t* a, dnnl_dim_t lda,
                                               const uint16_t* b, dnnl_dim_t ldb, float beta, float* c,
                                               dnnl_dim_t ldc);

namespace ziggurat::kernels {

namespace {

// Tiles of a strict product: large enough for oneDNN to stay near its peak, small enough to share among
// threads.
constexpr int64_t kTileRows = kStrictRows, kTileCols = 512;

char flag(bool transpose) { return transpose ? 'T' : 'N'; }

void library_gemm(const GemmArgs<float, float>& g) {
  const auto status = dnnl_sgemm(flag(g.transpose_a), flag(g.transpose_b), g.m, g.n, g.k, 1.0f, g.a, g.lda,
                                 g.b, g.ldb, g.accumulate ? 1.0f : 0.0f, g.c, g.ldc);
  check_library(status, "sgemm");
}

void library_gemm(const GemmArgs<bf16, float>& g) {
  static_assert(sizeof(bf16) == sizeof(uint16_t));
  const auto status = dnnl_gemm_bf16bf16f32(
      flag(g.transpose_a), flag(g.transpose_b), g.m, g.n, g.k, 1.0f, reinterpret_cast<const uint16_t*>(g.a),
      g.lda, reinterpret_cast<const uint16_t*>(g.b), g.ldb, g.accumulate ? 1.0f : 0.0f, g.c, g.ldc);
  check_library(status, "bf16 gemm");
}

// f64 is for gradient checks only: plain loops, rows in parallel.
void library_gemm(const GemmArgs<double, double>& g) {
  parallel_for_blocks(g.m, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double* c = g.c + i * g.ldc;
      if (!g.accumulate) std::fill(c, c + g.n, 0.0);
      for (int64_t p = 0; p < g.k; ++p) {
        const double a = g.transpose_a ? g.a[p * g.lda + i] : g.a[i * g.lda + p];
        for (int64_t j = 0; j < g.n; ++j)
          c[j] += a * (g.transpose_b ? g.b[j * g.ldb + p] : g.b[p * g.ldb + j]);
      }
    }
  });
}

// Handles products without terms, which the library refuses. Returns whether there is nothing left to do.
template <class T, class TC>
bool is_trivial(const GemmArgs<T, TC>& g) {
  if (g.m == 0 || g.n == 0) return true;
  if (g.k > 0) return false;
  for (int64_t i = 0; i < g.m && !g.accumulate; ++i) std::fill_n(g.c + i * g.ldc, g.n, TC{});
  return true;
}

template <class T, class TC>
bool is_whole(const GemmArgs<T, TC>& g) {
  return g.lda == (g.transpose_a ? g.m : g.k) && g.ldb == (g.transpose_b ? g.k : g.n) && g.ldc == g.n;
}

// Of whole matrices the library has blocked products beside its gemm interface. On a Cascade Lake these
// compute A^T B over many rows, a weight gradient, at four fifths of the roof and gemm at half of it; on a
// Zen 4 gemm is 5 % faster. A B^T they compute at gemm's pace or above it, A B below.
bool prefers_blocked(const GemmArgs<float, float>& g) {
  static const bool amd = __builtin_cpu_is("amd") != 0;
  return is_whole(g) && g.transpose_a != g.transpose_b && (g.transpose_b || !amd);
}

// The products of a backward pass: data gradients, A B, and weight gradients, A^T B, of which the library's
// gemm computes bf16 with AMX at a part of the pace of its blocked products. Those transpose A in every call,
// of many terms at a loss. Not A B^T, whose rows are in inference of any number.
template <class TC>
bool prefers_blocked(const GemmArgs<bf16, TC>& g) {
  constexpr int64_t kMostTerms = 512;
  static const bool amx = library_has(dnnl::cpu_isa::avx512_core_amx);
  return amx && is_whole(g) && !g.transpose_b && (!g.transpose_a || g.k <= kMostTerms);
}

// Returns whether the library has a blocked product of this shape, and has run it. A thread keeps the
// products that it made, and starts anew after so many different ones, as of texts of any length: training
// has a dozen.
template <class T, class TC>
bool blocked_gemm(const GemmArgs<T, TC>& g) {
  constexpr size_t kMost = 64;
  thread_local std::map<std::array<int64_t, 7>, std::optional<Matmul>> products;
  const std::array<int64_t, 7> key{g.transpose_a ? 1 : 0, g.transpose_b ? 1 : 0, g.m, g.n, g.k,
                                   thread_count(),        g.accumulate ? 1 : 0};
  auto found = products.find(key);
  if (found == products.end()) {
    if (products.size() == kMost) products.clear();
    const auto matrix = [](bool transposed, int64_t rows, int64_t cols) {
      return transposed ? column_major(rows, cols, kType<T>) : row_major(rows, cols, kType<T>);
    };
    const auto chosen = choose_matmul(matrix(g.transpose_a, g.m, g.k), matrix(g.transpose_b, g.k, g.n),
                                      row_major(g.m, g.n, kType<TC>), g.accumulate);
    found = products.try_emplace(key, std::nullopt).first;
    if (is_blocked(chosen)) found->second.emplace(chosen);
  }
  if (found->second && !DryRun::on()) found->second->run(g.a, g.b, g.c);
  return found->second.has_value();
}

// One library call, or on a strict stream one call per fixed tile of C.
template <class T, class TC>
void tiled_gemm(const GemmArgs<T, TC>& g, const Stream& stream) {
  if (DryRun::on()) return;
  if constexpr (!std::is_same_v<T, double>) {
    if (!stream.strict() && prefers_blocked(g) && blocked_gemm(g)) return;
  }
  if (!stream.strict() || std::is_same_v<T, double>) return library_gemm(g);
  const int64_t row_tiles = (g.m + kTileRows - 1) / kTileRows, col_tiles = (g.n + kTileCols - 1) / kTileCols;
  parallel_for(row_tiles * col_tiles, [&](int64_t tile) {
    const OneThread one_thread;  // also where a single tile opens no parallel region
    const int64_t i = tile / col_tiles * kTileRows, j = tile % col_tiles * kTileCols;
    GemmArgs<T, TC> part = g;
    part.m = std::min(kTileRows, g.m - i);
    part.n = std::min(kTileCols, g.n - j);
    part.a = g.a + (g.transpose_a ? i : i * g.lda);
    part.b = g.b + (g.transpose_b ? j * g.ldb : j);
    part.c = g.c + i * g.ldc + j;
    library_gemm(part);
  });
}

// A row's bits depend on no other row: where the last tile of a strict product has another number of rows
// than those that the library adds up alike, zeros follow them.
template <class T, class TC>
void row_by_row_gemm(const GemmArgs<T, TC>& g, Arena& workspace, const Stream& stream) {
  if (!stream.strict() || g.transpose_a) return tiled_gemm(g, stream);
  if (g.accumulate) {  // of many terms the library would add one part after the other to what is there
    GemmArgs<T, TC> product = g;
    product.c = workspace.take_on_device<TC>(g.m * g.n);
    product.ldc = g.n;
    product.accumulate = false;
    row_by_row_gemm(product, workspace, stream);
    return parallel_for_blocks(g.m, rows_per_block(g.n), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < g.n; ++j) g.c[i * g.ldc + j] += product.c[i * g.n + j];
      }
    });
  }
  const int64_t rest = g.m % kTileRows, rows = padded_rows(rest);
  if (rest == 0 || rest == rows) return tiled_gemm(g, stream);
  T* a = workspace.take_on_device<T>(rows * g.k);
  TC* c = workspace.take_on_device<TC>(rows * g.n);
  if (DryRun::on()) return;
  GemmArgs<T, TC> whole = g;
  whole.m = g.m - rest;
  if (whole.m > 0) tiled_gemm(whole, stream);
  std::fill(a + rest * g.k, a + rows * g.k, T{});
  for (int64_t i = 0; i < rest; ++i) std::copy_n(g.a + (whole.m + i) * g.lda, g.k, a + i * g.k);
  tiled_gemm(GemmArgs<T, TC>{false, g.transpose_b, rows, g.n, g.k, a, g.k, g.b, g.ldb, c, g.n, false},
             stream);
  for (int64_t i = 0; i < rest; ++i) std::copy_n(c + i * g.n, g.n, g.c + (whole.m + i) * g.ldc);
}

// AVX2 products read their operands as they lie unless these are large. Where they read down the columns of a
// matrix whose rows are whole pages apart, its elements share a few lines of the cache and push each other
// out: on a Zen 1 A B of 256 rows runs at three quarters of its pace, A^T B at nine tenths. Rows of copies
// are a line further apart.
constexpr bool kReadsInPlace = kVectorBytes == 32;
constexpr int64_t kPage = 4096 / sizeof(float), kLine = 64 / sizeof(float);

bool in_whole_pages(int64_t ld) { return kReadsInPlace && ld % kPage == 0; }

// A f32 copy of an operand [rows, cols], and its row stride.
template <class T>
std::pair<const float*, int64_t> copy_operand(const T* x, int64_t rows, int64_t cols, int64_t ld,
                                              Arena& workspace) {
  const int64_t ld_copy = cols + (in_whole_pages(cols) ? kLine : 0);
  return {float_copy(x, rows, cols, ld, ld_copy, workspace), ld_copy};
}

void float_gemm(GemmArgs<float, float> g, Arena& workspace, const Stream& stream) {
  // Enough products an element to be worth its copy; and of B's, few enough to be read in place. The tiles of
  // strict products are, and whether B is copied must not depend on the rows of A, which a layout changes.
  constexpr int64_t kWorthACopy = 512, kWorthBCopy = 128, kReadInPlace = 256;
  if (g.transpose_a && in_whole_pages(g.lda) && g.n >= kWorthACopy) {
    std::tie(g.a, g.lda) = copy_operand(g.a, g.k, g.m, g.lda, workspace);
  }
  const bool few_rows = g.m >= kWorthBCopy && g.m <= kReadInPlace * thread_count();
  if (!g.transpose_b && in_whole_pages(g.ldb) && (few_rows || stream.strict())) {
    std::tie(g.b, g.ldb) = copy_operand(g.b, g.k, g.n, g.ldb, workspace);
  }
  row_by_row_gemm(g, workspace, stream);
}

void bf16_to_float_gemm(const GemmArgs<bf16, float>& g, Arena& workspace, const Stream& stream) {
  if (bf16_gemm() == Bf16Gemm::native) return row_by_row_gemm(g, workspace, stream);
  const int64_t a_rows = g.transpose_a ? g.k : g.m, a_cols = g.transpose_a ? g.m : g.k;
  const int64_t b_rows = g.transpose_b ? g.n : g.k, b_cols = g.transpose_b ? g.k : g.n;
  const auto [a, lda] = copy_operand(g.a, a_rows, a_cols, g.lda, workspace);
  const auto [b, ldb] = copy_operand(g.b, b_rows, b_cols, g.ldb, workspace);
  row_by_row_gemm(GemmArgs<float, float>{g.transpose_a, g.transpose_b, g.m, g.n, g.k, a, lda, b, ldb, g.c,
                                         g.ldc, g.accumulate},
                  workspace, stream);
}

}  // namespace

// ONEDNN_MAX_CPU_ISA may keep the library below what its bf16 gemm needs.
Bf16Gemm bf16_gemm() {
  static const Bf16Gemm choice =
      __builtin_cpu_supports("avx512bf16") && library_has(dnnl::cpu_isa::avx512_core) ? Bf16Gemm::native
                                                                                      : Bf16Gemm::widened;
  return choice;
}

template <Device D, class T, class TC>
void gemm(const GemmArgs<T, TC>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "gemm");
  if (is_trivial(g)) return;
  const ArenaScope scope(workspace);
  if constexpr (std::is_same_v<T, double>) {
    tiled_gemm(g, stream);
  } else if constexpr (std::is_same_v<T, float>) {
    float_gemm(g, workspace, stream);
  } else if constexpr (std::is_same_v<TC, float>) {
    bf16_to_float_gemm(g, workspace, stream);
  } else {  // sum in f32, round once
    if (!stream.strict() && prefers_blocked(g) && blocked_gemm(g)) return;
    auto* sum = workspace.take_on_device<float>(g.m * g.n);
    bf16_to_float_gemm({g.transpose_a, g.transpose_b, g.m, g.n, g.k, g.a, g.lda, g.b, g.ldb, sum, g.n, false},
                       workspace, stream);
    round_sum(sum, g.m, g.n, g.c, g.ldc, g.accumulate);
  }
}

template <Device D, class T, class TC>
void gemm_on_this_thread(const GemmArgs<T, TC>& g) {
  if (is_trivial(g)) return;
  const OneThread alone;
  library_gemm(g);
}

template void gemm_on_this_thread<Device::cpu>(const GemmArgs<float, float>&);
template void gemm_on_this_thread<Device::cpu>(const GemmArgs<bf16, float>&);
template void gemm_on_this_thread<Device::cpu>(const GemmArgs<double, double>&);
template void gemm<Device::cpu>(const GemmArgs<float, float>&, Arena&, Stream&);
template void gemm<Device::cpu>(const GemmArgs<bf16, bf16>&, Arena&, Stream&);
template void gemm<Device::cpu>(const GemmArgs<bf16, float>&, Arena&, Stream&);
template void gemm<Device::cpu>(const GemmArgs<double, double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
