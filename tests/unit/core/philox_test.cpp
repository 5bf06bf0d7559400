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
}

TEST(Philox, BatchEqualsBlocks) {
  const Philox rng(3, Purpose::test, 1, 9);
  // The second batch starts just below 2^32, where the counter's upper half begins to count.
  for (const uint64_t first : {uint64_t{0}, (uint64_t{1} << 32) - 5}) {
    std::array<uint32_t, 4 * Philox::kBatch> got{};
    rng.batch(first, got.data());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], rng.bits(4 * first + i)) << i;
  }
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
