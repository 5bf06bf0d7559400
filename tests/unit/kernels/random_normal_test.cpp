#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include <ziggurat/kernels/random_normal.h>

namespace ziggurat::kernels {
namespace {

template <class T>
std::vector<T> draw(uint64_t first, double scale, int64_t n) {
  std::vector<T> y(static_cast<size_t>(n));
  Stream stream;
  random_normal<Device::cpu>(
      RandomNormalArgs<T>{
          .rng = Philox(7, Purpose::test), .first = first, .scale = scale, .y = y.data(), .n = n},
      stream);
  return y;
}

// Philox::normal is the reference. Its angle is 2 pi t rounded, wrong by half an ulp of up to 2 pi: that and
// both ways' own rounding, times a radius below sqrt(2 * 33 ln 2) < 6.8, is below 2^-46.
TEST(RandomNormal, IsPhiloxNormal) {
  const Philox rng(7, Purpose::test);
  for (const uint64_t first : {uint64_t{0}, uint64_t{1}, (uint64_t{1} << 33) - 77}) {
    for (const int64_t n : {1, 2, 63, 64, 65, 40001}) {
      const std::vector<double> y = draw<double>(first, 1.5, n);
      for (size_t i = 0; i < y.size(); ++i) {
        ASSERT_NEAR(y[i], 1.5 * rng.normal(first + i), 1.5 * 0x1p-46) << first << " + " << i;
      }
    }
  }
}

TEST(RandomNormal, AnyCutOfTheStreamGivesTheSameBits) {
  const std::vector<float> whole = draw<float>(5, 0.02, 1000);
  for (const int64_t cut : {1, 2, 63, 64, 500, 999}) {
    std::vector<float> parts = draw<float>(5, 0.02, cut);
    const std::vector<float> rest = draw<float>(5 + static_cast<uint64_t>(cut), 0.02, 1000 - cut);
    parts.insert(parts.end(), rest.begin(), rest.end());
    EXPECT_EQ(parts, whole) << "cut at " << cut;
  }
}

TEST(RandomNormal, WritesNothingForNoElements) {
  float untouched = 3;
  Stream stream;
  random_normal<Device::cpu>(RandomNormalArgs<float>{.y = &untouched, .n = 0}, stream);
  EXPECT_EQ(untouched, 3);
}

}  // namespace
}  // namespace ziggurat::kernels
