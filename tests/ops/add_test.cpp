#include "tests/support/op_test.h"
#include <ziggurat/ops/add.h>

namespace ziggurat {
namespace {

using test::OpBench;

class Add : public testing::TestWithParam<int64_t> {};  // elements

TEST_P(Add, ForwardEqualsNaiveReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    const Tensor a = bench.tensor("a", dtype, {GetParam()}), b = bench.tensor("b", dtype, {GetParam()});
    const Var y = ops::add(bench.tape(), bench.tape().constant(a), bench.tape().constant(b));
    const auto as = test::to_doubles(a), bs = test::to_doubles(b);
    std::vector<double> want;
    for (size_t i = 0; i < as.size(); ++i) want.push_back(as[i] + bs[i]);
    test::expect_close(y.value(), want, 1, 1.0, to_string(dtype));
  }
}

TEST_P(Add, GradientsEqualFiniteDifferences) {
  if (GetParam() > 100) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  const Shape shape = {GetParam(), 1};
  test::expect_gradients(bench, {bench.tensor("a", DType::f64, shape), bench.tensor("b", DType::f64, shape)},
                         {},
                         [](Tape& tape, const std::vector<Var>& v) { return ops::add(tape, v[0], v[1]); });
}

INSTANTIATE_TEST_SUITE_P(Sizes, Add, testing::Values(0, 1, 7, 33, 40001));

TEST(AddBackward, OneGradientServesBothInputsWithoutACopy) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Var a = tape.variable(bench.tensor("a", DType::f32, {3, 2}));
  const Var b = tape.variable(bench.tensor("b", DType::f32, {3, 2}));
  tape.backward(ops::add(tape, a, b), bench.tensor("dy", DType::f32, {3, 2}));
  EXPECT_EQ(tape.grad(a).raw(), tape.grad(b).raw());
}

TEST(AddBackward, SharedGradientsAreNotWrittenThroughEachOther) {
  OpBench bench;
  const std::vector<Tensor> inputs = {bench.tensor("a", DType::f64, {2, 3}),
                                      bench.tensor("b", DType::f64, {2, 3})};
  // b's gradient shares memory with a's until a gets more: d/da = 4, d/db = 2.
  test::expect_gradients(bench, inputs, {}, [](Tape& tape, const std::vector<Var>& v) {
    const Var doubled = ops::add(tape, v[0], v[0]);
    const Var s = ops::add(tape, v[0], v[1]);
    return ops::add(tape, ops::add(tape, s, doubled), ops::add(tape, v[1], v[0]));
  });
}

TEST(AddMisuse, ShapesAndDtypesAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Var x = tape.constant(bench.tensor("x", DType::f32, {2, 3}));
  EXPECT_THROW(ops::add(tape, x, tape.constant(bench.tensor("y", DType::f32, {3, 2}))), Error);
  EXPECT_THROW(ops::add(tape, x, tape.constant(bench.tensor("y", DType::bf16, {2, 3}))), Error);
}

}  // namespace
}  // namespace ziggurat
