// What bf16 computes against f64 on the same rounded values, forward and backward: by element, and by each
// tensor's norm, which a wrong block of a gradient exceeds though its elements look like rounding.
#include <gtest/gtest.h>

#include "tests/support/op_cases.h"

namespace ziggurat {
namespace {

class Bf16 : public ::testing::TestWithParam<test::OpCase> {};

TEST_P(Bf16, EqualsF64OnTheSameValuesToRounding) {
  const auto exact = test::run_op(GetParam(), Device::cpu, DType::bf16, DType::f64);
  test::expect_same_results(test::run_op(GetParam(), Device::cpu, DType::bf16, DType::bf16), exact,
                            DType::bf16);
}

INSTANTIATE_TEST_SUITE_P(Ops, Bf16, ::testing::ValuesIn(test::op_cases()));

}  // namespace
}  // namespace ziggurat
