// The functions of the kernels' inner loops against the C library's, in double.
#include <limits>

#include <gtest/gtest.h>
#include <kernels/cpu/vector_math.h>

namespace ziggurat::kernels {

namespace {

constexpr double kUlp = 0x1p-23;  // of numbers from 1 on
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Float arguments all over [low, high].
template <class F>
void for_arguments(float low, float high, const F& f) {
  constexpr int kCount = 200'003;
  for (int i = 0; i <= kCount; ++i) f(low + (high - low) * (static_cast<float>(i) / kCount));
}

}  // namespace

TEST(VectorMath, ExponentialIsGoodToTwoUlps) {
  for_arguments(-87.0f, 88.0f, [](float x) {
    const double want = std::exp(double{x});
    ASSERT_NEAR(vexp(x), want, 2 * kUlp * want) << x;
  });
  EXPECT_EQ(vexp(0.0f), 1.0f);
}

TEST(VectorMath, ExponentialOfWhatIsMaskedIsAlmostZero) {
  for (const float x : {-88.0f, -1e4f, -1e30f, -kInfinity}) {
    EXPECT_GE(vexp(x), 0.0f) << x;
    EXPECT_LE(vexp(x), 1.3e-38f) << x;
  }
}

TEST(VectorMath, NaNStaysNaNWhateverItsBits) {
  for (const float x : {kNaN, -kNaN, std::bit_cast<float>(0xffffffffu), std::bit_cast<float>(0x7fc00001u)}) {
    EXPECT_TRUE(std::isnan(vexp(x)));
    EXPECT_TRUE(std::isnan(sigmoid(x)));
  }
}

TEST(VectorMath, SigmoidIsGoodToThreeUlps) {
  for_arguments(-80.0f, 80.0f, [](float x) {
    const double want = 1 / (1 + std::exp(-double{x}));
    ASSERT_NEAR(sigmoid(x), want, 3 * kUlp * want) << x;
  });
  EXPECT_EQ(sigmoid(0.0f), 0.5f);
  EXPECT_EQ(sigmoid(kInfinity), 1.0f);
  EXPECT_LE(sigmoid(-kInfinity), 1.3e-38f);
}

}  // namespace ziggurat::kernels
