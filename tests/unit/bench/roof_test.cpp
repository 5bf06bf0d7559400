#include <gtest/gtest.h>

#include <ziggurat/bench/roof.h>

namespace ziggurat::bench {
namespace {

TEST(Roof, IsAboveZero) { EXPECT_GT(measure_gemm_roof(DType::f32), 0); }

}  // namespace
}  // namespace ziggurat::bench
