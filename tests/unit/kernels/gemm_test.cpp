#include <array>
#include <cmath>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/support/random_values.h"
#include <ziggurat/kernels/gemm.h>

namespace ziggurat::kernels {
namespace {

struct Case {
  bool transpose_a, transpose_b;
  int64_t m, n, k, gap;  // gap: elements between two rows as stored
  bool accumulate;
};

// Against sums in f64. A sum of k products is off by at most k units of rounding times the sum of their
// absolute values; the last rounding, to bf16, by 2^-9 of the result.
template <class T, class TC>
void expect_product(const Case& c, Reproducible reproducible) {
  const int64_t lda = (c.transpose_a ? c.m : c.k) + c.gap, ldb = (c.transpose_b ? c.k : c.n) + c.gap,
                ldc = c.n + c.gap;
  const std::vector<T> a = test::random_values<T>((c.transpose_a ? c.k : c.m) * lda, 1),
                       b = test::random_values<T>((c.transpose_b ? c.n : c.k) * ldb, 2);
  const std::vector<TC> before = test::random_values<TC>(c.m * ldc, 3);
  std::vector<TC> after = before;
  Arena workspace("test", int64_t{1} << 30);
  Stream stream(Device::cpu, reproducible);
  gemm<Device::cpu>(GemmArgs<T, TC>{c.transpose_a, c.transpose_b, c.m, c.n, c.k, a.data(), lda, b.data(), ldb,
                                    after.data(), ldc, c.accumulate},
                    workspace, stream);

  const auto at = [](const auto& x, int64_t i) { return static_cast<double>(x[static_cast<size_t>(i)]); };
  const double unit = std::is_same_v<T, double> ? 0x1p-53 : 0x1p-24;
  const double last_rounding = std::is_same_v<TC, bf16> ? 0x1p-9 : unit;
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < ldc; ++j) {
      if (j >= c.n) {
        ASSERT_EQ(at(after, i * ldc + j), at(before, i * ldc + j)) << "written between rows";
        continue;
      }
      double sum = c.accumulate ? at(before, i * ldc + j) : 0, size = std::abs(sum);
      for (int64_t p = 0; p < c.k; ++p) {
        const double term = at(a, c.transpose_a ? p * lda + i : i * lda + p) *
                            at(b, c.transpose_b ? j * ldb + p : p * ldb + j);
        sum += term, size += std::abs(term);
      }
      const double bound = static_cast<double>(c.k + 1) * unit * size + 2 * last_rounding * std::abs(sum);
      ASSERT_NEAR(at(after, i * ldc + j), sum, bound) << i << ", " << j;
    }
  }
}

TEST(Gemm, IsTheProductOfItsMatrices) {
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      for (const auto [m, n, k] : {std::array<int64_t, 3>{1, 1, 1},
                                   {5, 3, 7},
                                   {33, 70, 1},
                                   {130, 65, 40},
                                   {64, 48, 300},
                                   {7, 9, 0}}) {
        for (const int64_t gap : {0, 5}) {
          for (const bool accumulate : {false, true}) {
            const Case c{transpose_a, transpose_b, m, n, k, gap, accumulate};
            for (const Reproducible r : {Reproducible::layout, Reproducible::strict}) {
              SCOPED_TRACE(fmt::format("{}x{}x{} A{} B{} gap {} {} {}", m, n, k, transpose_a ? "^T" : "",
                                       transpose_b ? "^T" : "", gap, accumulate ? "+=" : "=",
                                       r == Reproducible::strict ? "strict" : "layout"));
              expect_product<float, float>(c, r);
              expect_product<bf16, float>(c, r);
              expect_product<bf16, bf16>(c, r);
              expect_product<double, double>(c, r);
            }
          }
        }
      }
    }
  }
}

// Rows of A^T or of B whole pages apart, which some CPUs' products copy first.
TEST(Gemm, OperandsMayLieWholePagesApart) {
  for (const bool transpose_a : {false, true}) {
    const Case c{transpose_a, false, transpose_a ? 1024 : 130, transpose_a ? 513 : 1024, 3, 0, transpose_a};
    for (const Reproducible r : {Reproducible::layout, Reproducible::strict}) {
      SCOPED_TRACE(fmt::format("A{}", transpose_a ? "^T" : ""));
      expect_product<float, float>(c, r);
      expect_product<bf16, float>(c, r);
    }
  }
}

// Of no whole tiles of a CPU's matrix unit, with as many terms as are still summed in one blocked product and
// with more.
TEST(Gemm, Bf16ProductsOfABackwardPassAreTheirSums) {
  for (const bool transpose_a : {false, true}) {
    for (const int64_t terms : {31, 511, 512, 513}) {
      for (const bool accumulate : {false, true}) {
        const Case c{transpose_a, false, 97, 131, terms, 0, accumulate};
        SCOPED_TRACE(
            fmt::format("A{}, {} terms, {}", transpose_a ? "^T" : "", terms, accumulate ? "+=" : "="));
        expect_product<bf16, float>(c, Reproducible::layout);
        expect_product<bf16, bf16>(c, Reproducible::layout);
      }
    }
  }
}

// A strict product of the first rows alone has the bits that these rows have among others.
// Of one number of rows after another, at the beginning of the matrix and at its end.
template <class T>
void expect_rows_to_depend_on_no_others(bool transpose_b, bool accumulate, int64_t n, int64_t k) {
  constexpr int64_t kRows = 300;
  Arena workspace("workspace", int64_t{1} << 24);
  Stream stream(Device::cpu, Reproducible::strict);
  const std::vector<T> a = test::random_values<T>(kRows * k, 3), b = test::random_values<T>(n * k, 4);
  const auto product = [&](int64_t first, int64_t rows) {
    std::vector<float> c(static_cast<size_t>(rows * n), 0.37f);
    const ArenaScope scope(workspace);
    gemm<Device::cpu>(GemmArgs<T, float>{false, transpose_b, rows, n, k, a.data() + first * k, k, b.data(),
                                         transpose_b ? k : n, c.data(), n, accumulate},
                      workspace, stream);
    return c;
  };
  const std::vector<float> all = product(0, kRows);
  for (int64_t rows = 1; rows < kRows; rows += rows < 100 ? 1 : 23) {
    for (const int64_t first : {int64_t{0}, kRows - rows}) {
      const std::vector<float> some = product(first, rows);
      EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin() + first * n))
          << "transposed " << transpose_b << ", accumulated " << accumulate << ", " << n << " columns, " << k
          << " terms, " << rows << " rows from " << first;
    }
  }
}

TEST(Gemm, RowsOfAStrictProductDependOnNoOthers) {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{96, 32}, {65, 130}, {520, 768}, {16, 1100}}) {
    for (const bool transpose_b : {false, true}) {
      for (const bool accumulate : {false, true}) {
        expect_rows_to_depend_on_no_others<float>(transpose_b, accumulate, n, k);
        expect_rows_to_depend_on_no_others<bf16>(transpose_b, accumulate, n, k);
      }
    }
  }
}

}  // namespace
}  // namespace ziggurat::kernels
