#include "tests/support/op_test.h"
#include <ziggurat/ops/multiply.h>

namespace ziggurat {
namespace {

using test::OpBench;

class Multiply : public testing::TestWithParam<Shape> {};

TEST_P(Multiply, ForwardEqualsNaiveReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    Tape& tape = bench.tape();
    const Tensor a = bench.tensor("a", dtype, GetParam()), b = bench.tensor("b", dtype, GetParam());
    const Var y = ops::multiply(tape, tape.constant(a), tape.constant(b));
    const auto as = test::to_doubles(a), bs = test::to_doubles(b);
    std::vector<double> want;
    for (size_t i = 0; i < as.size(); ++i) want.push_back(as[i] * bs[i]);
    test::expect_close(y.value(), want, 1, 1.0, to_string(dtype));
  }
}

TEST_P(Multiply, GradientsEqualFiniteDifferences) {
  if (GetParam().numel() > 200) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  test::expect_gradients(
      bench, {bench.tensor("a", DType::f64, GetParam()), bench.tensor("b", DType::f64, GetParam())}, {},
      [](Tape& tape, const std::vector<Var>& v) {  // twice: the second use adds to gradients
        return ops::multiply(tape, ops::multiply(tape, v[0], v[1]), v[0]);
      });
}

INSTANTIATE_TEST_SUITE_P(Shapes, Multiply,
                         testing::Values(Shape{0, 3}, Shape{1, 1}, Shape{5, 7}, Shape{67, 513}));

TEST(MultiplyBackward, OneVariableMayBeBothFactors) {
  OpBench bench;
  test::expect_gradients(
      bench, {bench.tensor("x", DType::f64, {3, 4})}, {},
      [](Tape& tape, const std::vector<Var>& v) { return ops::multiply(tape, v[0], v[0]); });
}

TEST(MultiplyMisuse, ShapesAndDtypesAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const auto constant = [&](DType dtype, Shape shape) {
    return tape.constant(bench.tensor("x", dtype, shape));
  };
  EXPECT_THROW(ops::multiply(tape, constant(DType::f32, {2, 3}), constant(DType::f32, {3, 2})), Error);
  EXPECT_THROW(ops::multiply(tape, constant(DType::f32, {2, 3}), constant(DType::bf16, {2, 3})), Error);
}

}  // namespace
}  // namespace ziggurat
