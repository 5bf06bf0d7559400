// Numbers of rows that strict products are computed in.
#pragma once

#include <cstdint>

namespace ziggurat::kernels {

// oneDNN adds up in another order fewer than 16 rows (AVX-512), and the last one to three rows beyond a
// multiple of 6, or beyond one in each half where it halves them (AVX2). It adds up all rows alike where
// there are 16, or a multiple of 12 up to this many: gemm_test holds it.
constexpr int64_t kStrictRows = 96;

// At least `rows`, and among those: rows of a product that have zeros behind them up to so many depend on no
// others. For 0 < rows <= kStrictRows.
inline int64_t padded_rows(int64_t rows) { return rows <= 16 ? 16 : (rows + 11) / 12 * 12; }

}  // namespace ziggurat::kernels
