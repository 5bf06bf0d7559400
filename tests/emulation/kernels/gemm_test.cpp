// What is done around the library's products; the products themselves are the emulator's (emulation/lib).
#include <array>

#include <fmt/format.h>

#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/packed_weights.h>

namespace ziggurat::emulation {
namespace {

struct GemmCase {
  bool transpose_a, transpose_b;
  int64_t m, n, k, gap;  // gap: elements between two rows as stored
  bool accumulate;
};
std::string describe(const GemmCase& c) {
  return fmt::format("{}x{}x{} A{} B{} gap {} {}", c.m, c.n, c.k, c.transpose_a ? "^T" : "",
                     c.transpose_b ? "^T" : "", c.gap, c.accumulate ? "+=" : "=");
}

class EmulatedGemm : public EmulatedTest {};

// Against sums in f64, rounded once. Elements between rows stay as they were.
template <class T, class TC>
void expect_product(const GemmCase& c, size_t shift, Reproducible reproducible) {
  const int64_t lda = (c.transpose_a ? c.m : c.k) + c.gap, ldb = (c.transpose_b ? c.k : c.n) + c.gap,
                ldc = c.n + c.gap;
  const auto size = [](int64_t rows, int64_t ld) { return static_cast<size_t>(rows * ld); };
  const auto a = values<T>("a", size(c.transpose_a ? c.k : c.m, lda)),
             b = values<T>("b", size(c.transpose_b ? c.n : c.k, ldb));
  const auto before = values<TC>("c", size(c.m, ldc));
  const DeviceTensor<T> d_a(a, shift), d_b(b, shift);
  const DeviceTensor<TC> d_c(before, shift);
  Arena workspace("workspace", 1 << 20, Device::cuda);
  Stream stream(Device::cuda, reproducible);
  kernels::gemm<Device::cuda>(
      kernels::GemmArgs<T, TC>{c.transpose_a, c.transpose_b, c.m, c.n, c.k, d_a.data(), lda, d_b.data(), ldb,
                               d_c.data(), ldc, c.accumulate},
      workspace, stream);
  EXPECT_EQ(workspace.used(), 0);

  std::vector<TC> want = before;
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) {
      TC& result = want[static_cast<size_t>(i * ldc + j)];
      double sum = c.accumulate ? to_double(result) : 0;
      for (int64_t p = 0; p < c.k; ++p) {
        sum += to_double(a[static_cast<size_t>(c.transpose_a ? p * lda + i : i * lda + p)]) *
               to_double(b[static_cast<size_t>(c.transpose_b ? j * ldb + p : p * ldb + j)]);
      }
      result = TC(sum);
    }
  }
  expect_near(d_c.get(), want, "c", static_cast<double>(c.k), 4);
}

void expect_products(const GemmCase& c, size_t shift) {
  for (const Reproducible r : {Reproducible::layout, Reproducible::strict}) {
    SCOPED_TRACE(describe(c) + (r == Reproducible::strict ? " strict" : ""));
    expect_product<float, float>(c, shift, r);
    expect_product<bf16, bf16>(c, shift, r);
    expect_product<bf16, float>(c, shift, r);
  }
}

// Around a tile of a strict product (128 rows), and without rows, columns or terms.
TEST_F(EmulatedGemm, IsTheProductOfItsMatrices) {
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      for (const auto [m, n, k] : {std::array<int64_t, 3>{1, 1, 1},
                                   {5, 3, 7},
                                   {130, 9, 4},
                                   {16, 24, 40},
                                   {7, 9, 0},
                                   {0, 3, 2},
                                   {2, 0, 3}}) {
        for (const int64_t gap : {0, 5}) {
          for (const bool accumulate : {false, true}) {
            expect_products({transpose_a, transpose_b, m, n, k, gap, accumulate}, gap == 0 ? 0 : 1);
          }
        }
      }
    }
  }
}

// 300 rows are three products of 128 rows; A^T B is one.
TEST_F(EmulatedGemm, AStrictProductIsOneOfEveryTile) {
  expect_product<float, float>({false, true, 300, 8, 8, 0, true}, 1, Reproducible::strict);
  EXPECT_EQ(counts("matmul<float, float>").launches, 3);
  expect_product<bf16, float>({true, false, 300, 8, 8, 0, true}, 0, Reproducible::strict);
  EXPECT_EQ(counts("matmul<bf16, float>").launches, 1);
}

TEST_F(EmulatedGemm, NothingIsAllocatedOnceItsProductsWereSeen) {
  Arena workspace("workspace", 1 << 20, Device::cuda);
  Stream stream(Device::cuda);
  const DeviceArray<float> a(values<float>("a", 64)), b(values<float>("b", 64)), c(64);
  const auto run = [&] {
    kernels::gemm<Device::cuda>(
        kernels::GemmArgs<float, float>{false, false, 8, 8, 8, a.data(), 8, b.data(), 8, c.data(), 8},
        workspace, stream);
    expect_success(cudaDeviceSynchronize());
  };
  run();
  const int64_t high_water = workspace.high_water(), live = live_allocations();
  run();
  EXPECT_EQ(workspace.high_water(), high_water);
  EXPECT_EQ(live_allocations(), live);
}

// Work of a stream: nothing has happened before the host waits.
TEST_F(EmulatedGemm, IsQueuedOnItsStream) {
  Arena workspace("workspace", 1 << 20, Device::cuda);
  Stream stream(Device::cuda);
  const DeviceArray<float> a(values<float>("a", 4)), b(values<float>("b", 4)), c(4);
  expect_success(cudaDeviceSynchronize());
  kernels::gemm<Device::cuda>(
      kernels::GemmArgs<float, float>{false, false, 2, 2, 2, a.data(), 2, b.data(), 2, c.data(), 2},
      workspace, stream);
  EXPECT_EQ(pending_work(), 1);
  EXPECT_EQ(counts("matmul<float, float>").launches, 0);
  expect_success(cudaDeviceSynchronize());
  EXPECT_EQ(counts("matmul<float, float>").launches, 1);
}

TEST_F(EmulatedGemm, AddressesOutsideTheDevicesMemoryAreNamed) {
  {
    Arena workspace("workspace", 1 << 20, Device::cuda);
    Stream stream(Device::cuda);
    const DeviceArray<float> a(64), b(64), c(63);
    kernels::gemm<Device::cuda>(
        kernels::GemmArgs<float, float>{false, false, 8, 8, 8, a.data(), 8, b.data(), 8, c.data(), 8},
        workspace, stream);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
    EXPECT_NE(std::string(cudaGetErrorString(cudaErrorLaunchFailure)).find("matmul: C: 256 bytes at byte 0"),
              std::string::npos)
        << cudaGetErrorString(cudaErrorLaunchFailure);
  }
  reset(default_seed());
}

TEST_F(EmulatedGemm, OfAWeightGoesBothWays) {
  constexpr int64_t kRows = 5, kOut = 6, kIn = 7;
  const auto x = values<float>("x", kRows * kIn), w = values<float>("w", kOut * kIn),
             dx = values<float>("dx", kRows * kIn);
  std::vector<float> y(kRows * kOut), want_dx = dx;
  const DeviceArray<float> d_x(x), d_w(w), d_y(kRows * kOut), d_dx(dx);
  Stream cpu(Device::cpu), cuda(Device::cuda);
  Arena host("host", 1 << 20), device("device", 1 << 20, Device::cuda);
  using kernels::Side, kernels::WeightProduct;
  kernels::weight_product<Device::cpu>(
      WeightProduct<float, float>{Side::forward, kRows, kOut, kIn, x.data(), w.data(), nullptr, 0, y.data()},
      host, cpu);
  kernels::weight_product<Device::cpu>(
      WeightProduct<float, float>{Side::backward, kRows, kOut, kIn, y.data(), w.data(), nullptr, 0,
                                  want_dx.data(), true},
      host, cpu);
  kernels::weight_product<Device::cuda>(
      WeightProduct<float, float>{Side::forward, kRows, kOut, kIn, d_x.data(), d_w.data(), nullptr, 0,
                                  d_y.data()},
      device, cuda);
  kernels::weight_product<Device::cuda>(
      WeightProduct<float, float>{Side::backward, kRows, kOut, kIn, d_y.data(), d_w.data(), nullptr, 0,
                                  d_dx.data(), true},
      device, cuda);
  expect_near(d_y.get(), y, "y", kIn, 4);
  expect_near(d_dx.get(), want_dx, "dx", kIn * kOut, 16);
}

}  // namespace
}  // namespace ziggurat::emulation
