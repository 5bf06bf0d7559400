#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/adamw.h>

namespace ziggurat::emulation {
namespace {

class EmulatedSumOfSquares : public EmulatedTest {
 protected:
  double on_device(const std::vector<float>& x, size_t shift) {
    const DeviceTensor<float> d_x(x, shift);
    const DeviceArray<double> sum(1);
    Stream stream(Device::cuda);
    Arena workspace("workspace", 1 << 20, Device::cuda);
    kernels::sum_of_squares<Device::cuda>(d_x.data(), static_cast<int64_t>(x.size()), sum.data(), workspace,
                                          stream);
    return sum.get()[0];
  }
};

// Around a load, a block's loads, and the most blocks there are.
TEST_F(EmulatedSumOfSquares, EqualsTheCpusAndDoesNotDependOnTheAddress) {
  Stream cpu(Device::cpu);
  for (const size_t n : {0, 1, 3, 4, 1023, 1024, 1025, 5000, (1 << 20) + 2049}) {
    SCOPED_TRACE(testing::Message() << n << " elements");
    const auto x = values<float>("x", n);
    Arena workspace("workspace", 1 << 10);
    double want = 0;
    kernels::sum_of_squares<Device::cpu>(x.data(), static_cast<int64_t>(n), &want, workspace, cpu);
    const double got = on_device(x, 0);
    EXPECT_NEAR(got, want, want * 0x1p-52 * std::sqrt(static_cast<double>(n)));
    EXPECT_EQ(on_device(x, 1), got);
  }
}

// Squares beyond fp32's range, and what is no number, arrive.
TEST_F(EmulatedSumOfSquares, SquaresAreDoubles) {
  EXPECT_EQ(on_device({1e30f, 1e-30f, 0.0f}, 0), static_cast<double>(1e30f) * static_cast<double>(1e30f));
  EXPECT_TRUE(std::isnan(on_device({1.0f, std::nanf(""), 1.0f}, 0)));
  EXPECT_TRUE(std::isinf(on_device({1.0f, -HUGE_VALF}, 0)));
}

TEST_F(EmulatedSumOfSquares, ReadsEveryValueOnce) {
  constexpr int64_t kN = 16384;
  on_device(values<float>("x", kN), 0);
  const KernelCounts did = counts("partial_squares_kernel<true>");
  EXPECT_EQ(did.launches, 1);
  EXPECT_EQ(did.loaded_bytes, kN * 4);
  EXPECT_EQ(did.load_sectors * 32, did.loaded_bytes);
  EXPECT_EQ(did.load_requests, kN / 4 / 32);
  EXPECT_EQ(did.stored_bytes, kN / 1024 * 8);
}

}  // namespace
}  // namespace ziggurat::emulation
