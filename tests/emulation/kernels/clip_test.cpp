#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/clip.h>

namespace ziggurat::emulation {
namespace {

class EmulatedClip : public EmulatedTest {
 protected:
  static std::vector<double> on_device(const std::vector<double>& squares, double max_norm,
                                       const std::vector<double>& losses) {
    const DeviceArray<double> d_squares(squares), d_losses(losses), clipped(2);
    Stream stream(Device::cuda);
    kernels::clip<Device::cuda>({std::ssize(squares), d_squares.data(), max_norm, std::ssize(losses),
                                 d_losses.data(), clipped.data()},
                                stream);
    return clipped.get();
  }
};

// Fewer parts than threads, and more.
TEST_F(EmulatedClip, EqualsTheCpus) {
  Stream cpu;
  for (const int64_t n : {0, 1, 255, 256, 257, 1500}) {
    std::vector<double> squares;
    for (int64_t i = 0; i < n; ++i) squares.push_back(1 + static_cast<double>(i * 7919 % 101) / 7);
    for (const double max_norm : {0.0, 1.0, 1e6}) {
      double want[2] = {};
      kernels::clip<Device::cpu>({n, squares.data(), max_norm, 0, nullptr, want}, cpu);
      const auto got = on_device(squares, max_norm, {1.0, 2.0});
      EXPECT_NEAR(got[0], want[0], want[0] * 0x1p-48) << n;
      EXPECT_NEAR(got[1], want[1], want[1] * 0x1p-48) << n;
    }
  }
}

TEST_F(EmulatedClip, HasNoScaleBeyondALimit) {
  const DeviceArray<double> squares(std::vector<double>(400, 1.0)), losses(std::vector<double>(600, 0.5)),
      clipped(2);
  const auto scale = [&](double most_norm, double most_loss) {
    Stream stream(Device::cuda);
    kernels::clip<Device::cuda>(
        {400, squares.data(), 10.0, 600, losses.data(), clipped.data(), most_norm, most_loss, 3}, stream);
    return clipped.get()[1];
  };
  EXPECT_EQ(scale(20, 100), 0.5);
  EXPECT_TRUE(std::isnan(scale(19.9, 100)));
  EXPECT_TRUE(std::isnan(scale(20, 99.9)));
}

TEST_F(EmulatedClip, HasNoScaleForWhatIsNotFinite) {
  for (const double bad : {HUGE_VAL, -HUGE_VAL, std::nan("")}) {
    std::vector<double> many(600, 1.0);
    EXPECT_TRUE(std::isfinite(on_device(many, 1.0, many)[1]));
    const std::vector<double> good = many;
    many[550] = bad;
    EXPECT_FALSE(std::isfinite(on_device(many, 1.0, {})[0]));
    EXPECT_FALSE(std::isfinite(on_device(many, 0.0, {})[1]));
    EXPECT_FALSE(std::isfinite(on_device(good, 1.0, many)[1]));
    EXPECT_TRUE(std::isfinite(on_device(good, 1.0, many)[0]));
  }
}

}  // namespace
}  // namespace ziggurat::emulation
