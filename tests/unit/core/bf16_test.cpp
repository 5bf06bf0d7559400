#include <bit>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include <ziggurat/core/bf16.h>

namespace ziggurat {
namespace {

float from_bits(uint32_t bits) { return std::bit_cast<float>(bits); }

TEST(Bf16, EveryValueSurvivesTheWayToFloatAndBack) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    bf16 x;
    x.bits = static_cast<uint16_t>(bits);
    const float wide = x;
    if (std::isnan(wide)) {
      ASSERT_TRUE(std::isnan(float(bf16(wide)))) << bits;
    } else {
      ASSERT_EQ(bf16(wide).bits, bits);
    }
  }
}

TEST(Bf16, RoundsToNearestTiesToEven) {
  // 1 + k/128 are neighbours; a tie lies at 1/256.
  EXPECT_EQ(bf16(from_bits(0x3f808000u)).bits, 0x3f80);  // tie, lower neighbour even
  EXPECT_EQ(bf16(from_bits(0x3f818000u)).bits, 0x3f82);  // tie, upper neighbour even
  EXPECT_EQ(bf16(from_bits(0x3f807fffu)).bits, 0x3f80);  // just below
  EXPECT_EQ(bf16(from_bits(0x3f808001u)).bits, 0x3f81);  // just above
  EXPECT_EQ(bf16(from_bits(0xbf808000u)).bits, 0xbf80);  // negative: the same
  EXPECT_EQ(bf16(from_bits(0xbf818000u)).bits, 0xbf82);
  EXPECT_EQ(bf16(from_bits(0x3fffffffu)).bits, 0x4000);  // carries into the exponent
}

TEST(Bf16, InfinitiesZerosAndTheEndsOfTheRange) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(float(bf16(inf)), inf);
  EXPECT_EQ(float(bf16(-inf)), -inf);
  EXPECT_EQ(float(bf16(std::numeric_limits<float>::max())), inf);  // rounds up past the largest bf16
  EXPECT_EQ(bf16(from_bits(0x7f7f7fffu)).bits, 0x7f7f);            // the largest bf16
  EXPECT_EQ(bf16(0.0f).bits, 0x0000);
  EXPECT_EQ(bf16(-0.0f).bits, 0x8000);
  EXPECT_EQ(bf16(from_bits(0x00010000u)).bits, 0x0001);  // the smallest subnormal
  EXPECT_EQ(bf16(from_bits(0x00008000u)).bits, 0x0000);  // half of it: a tie, to even
}

TEST(Bf16, NaNsStayNaNsEvenIfTheirPayloadIsCutOff) {
  for (const uint32_t bits : {0x7fc00000u, 0x7f800001u, 0xff800001u, 0x7fffffffu, 0xffffffffu}) {
    EXPECT_TRUE(std::isnan(float(bf16(from_bits(bits))))) << bits;
  }
  EXPECT_EQ(bf16(from_bits(0xff800001u)).bits, 0xffc0);  // sign kept, quiet
}

}  // namespace
}  // namespace ziggurat
