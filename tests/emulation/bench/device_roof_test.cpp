// What is measured, not how fast: an emulated device's times say nothing.
#include <numeric>

#include "apps/kernel_cases.h"
#include "tests/emulation/emulated_test.h"
#include <ziggurat/bench/device_roof.h>
#include <ziggurat/kernels/device_roof.h>

namespace ziggurat::emulation {
namespace {

using DeviceRoofs = EmulatedTest;

TEST_F(DeviceRoofs, AreMeasuredByTheKernelsThatTheyNameWithoutWaits) {
  const bench::DeviceRoofs roofs = bench::measure_device_roofs({.products = {16, 32},
                                                                .bytes = 1 << 16,
                                                                .kernels = 5,
                                                                .recorded = 7,
                                                                .repetitions = {.seconds = 0, .means = 2}});
  ASSERT_EQ(roofs.products.size(), 4u);  // sizes x dtypes
  double best = 0;
  for (const auto& p : roofs.products) {
    EXPECT_GT(p.flops_per_second, 0);
    if (p.dtype == DType::bf16) best = std::max(best, p.flops_per_second);
  }
  EXPECT_EQ(roofs.flops_per_second(DType::bf16), best);
  EXPECT_EQ(roofs.flops_per_second(DType::f64), 0);
  for (const double value : {roofs.copy, roofs.read, roofs.kernel, roofs.start, roofs.round_trip}) {
    EXPECT_GT(value, 0);
    EXPECT_LT(value, 1e15);  // no time was zero
  }
  constexpr int kCalls = 2 + 2;  // to warm up, and of the means
  EXPECT_EQ(counts("matmul<bf16, bf16>").launches,
            2 * 3 * kCalls);  // sizes, and the three products of a layer
  EXPECT_EQ(counts("matmul<float, float>").launches, 2 * 3 * kCalls);
  EXPECT_EQ(counts("read_kernel").launches, kCalls);
  EXPECT_EQ(counts("read_kernel").loaded_bytes, kCalls * (1 << 16));
  EXPECT_EQ(counts("nothing_kernel").launches,
            5 * kCalls + 2 * (5 + 1) + (1 + 7));  // on the device's clock, on the host's, recorded
  EXPECT_EQ(roofs.recorded, 0);                   // nothing of the emulated device's memory
}

TEST_F(DeviceRoofs, ReadingReadsEverythingOnce) {
  Stream stream(Device::cuda);
  for (const int64_t n : {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{4096}, int64_t{100003}}) {
    std::vector<float> values(static_cast<size_t>(n));
    std::iota(values.begin(), values.end(), 1.0f);
    const DeviceArray<float> x(values), sums(std::vector<float>(static_cast<size_t>(kernels::kReadSums)));
    kernels::read_all<Device::cuda>(x.data(), n, sums.data(), stream);
    stream.wait();
    const auto got = sums.get();
    const double exact = static_cast<double>(n) * static_cast<double>(n + 1) / 2;
    EXPECT_NEAR(std::accumulate(got.begin(), got.end(), 0.0), exact, 1e-6 * exact) << n;
  }
}

// One table for times and counts: what a GPU is timed by is what the tests count.
TEST_F(DeviceRoofs, TimedCasesAreTheCountedOnes) {
  const auto names = [](apps::CaseSize size) {
    std::vector<std::string> all;
    for (const apps::KernelCase& k : apps::kernel_cases(Device::cuda, size)) {
      EXPECT_GT(k.floor.amount, 0) << k.name;
      all.push_back(k.name + to_string(k.dtype));
    }
    return all;
  };
  EXPECT_EQ(names(apps::CaseSize::timed), names(apps::CaseSize::counted));
}

}  // namespace
}  // namespace ziggurat::emulation
