#include <gtest/gtest.h>

#include <ziggurat/core/philox.h>

namespace ziggurat {
namespace {

TEST(Philox, ValuesDependOnEveryPartOfTheName) {
  const Philox base(1, Purpose::test, 2, 3);
  EXPECT_EQ(base.bits(5), Philox(1, Purpose::test, 2, 3).bits(5));
  EXPECT_NE(base.bits(5), base.bits(6));
  EXPECT_NE(base.bits(5), Philox(2, Purpose::test, 2, 3).bits(5));
  EXPECT_NE(base.bits(5), Philox(1, Purpose::init, 2, 3).bits(5));
  EXPECT_NE(base.bits(5), Philox(1, Purpose::test, 1, 3).bits(5));
  EXPECT_NE(base.bits(5), Philox(1, Purpose::test, 2, 4).bits(5));
  uint64_t moment = 0;
  const LatePhilox late(1, Purpose::test, 2, &moment);
  for (moment = 3; moment < 6; ++moment) {
    EXPECT_EQ(late.now().bits(5), Philox(1, Purpose::test, 2, moment).bits(5));
  }
}

TEST(Philox, ABatchOfBlocksIsTheSameNumbers) {
  const Philox rng(7, Purpose::test);
  const uint64_t first = (uint64_t{1} << 32) - 5;  // the counter's upper half changes within the batch
  std::array<uint32_t, 4 * Philox::kBatch> batch;
  rng.blocks(first, batch);
  for (size_t i = 0; i < batch.size(); ++i) ASSERT_EQ(batch[i], rng.bits(4 * first + i)) << i;
}

TEST(Philox, MomentsOfUniformAndNormal) {
  const Philox rng(7, Purpose::test);
  const int n = 200000;
  double u = 0, u2 = 0, z = 0, z2 = 0;
  for (int i = 0; i < n; ++i) {
    const double x = rng.uniform(static_cast<uint64_t>(i)), y = rng.normal(static_cast<uint64_t>(i));
    ASSERT_GT(x, 0.0);
    ASSERT_LT(x, 1.0);
    u += x, u2 += x * x, z += y, z2 += y * y;
  }
  // Five standard errors of each mean.
  EXPECT_NEAR(u / n, 0.5, 5 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(u2 / n, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / n));
  EXPECT_NEAR(z / n, 0.0, 5 / std::sqrt(n));
  EXPECT_NEAR(z2 / n, 1.0, 5 * std::sqrt(2.0 / n));
}

}  // namespace
}  // namespace ziggurat
