#include <cmath>

#include "tests/support/op_test.h"
#include <ziggurat/ops/swiglu.h>

namespace ziggurat {
namespace {

using test::OpBench;

class Swiglu : public testing::TestWithParam<int64_t> {};  // elements

TEST_P(Swiglu, ForwardEqualsNaiveReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    const Tensor gate = bench.tensor("gate", dtype, {GetParam()}, 3.0);
    const Tensor up = bench.tensor("up", dtype, {GetParam()});
    const Var y = ops::swiglu(bench.tape(), bench.tape().constant(gate), bench.tape().constant(up));
    const auto g = test::to_doubles(gate), u = test::to_doubles(up);
    std::vector<double> want;
    for (size_t i = 0; i < g.size(); ++i) want.push_back(g[i] / (1 + std::exp(-g[i])) * u[i]);
    test::expect_close(y.value(), want, 8, 1.0, to_string(dtype));
  }
}

TEST_P(Swiglu, GradientsEqualFiniteDifferences) {
  if (GetParam() > 100) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  const std::vector<Tensor> inputs = {bench.tensor("gate", DType::f64, {GetParam(), 1}),
                                      bench.tensor("up", DType::f64, {GetParam(), 1})};
  test::expect_gradients(bench, inputs, {}, [](Tape& tape, const std::vector<Var>& v) {
    // Both inputs twice: the second use adds to gradients that are already there.
    return ops::swiglu(tape, ops::swiglu(tape, v[0], v[1]), ops::swiglu(tape, v[1], v[0]));
  });
}

// One element, and around a tile of 256 and a thread's block of 16384.
INSTANTIATE_TEST_SUITE_P(Sizes, Swiglu, testing::Values(0, 1, 7, 33, 257, 16384, 40001));

TEST(SwigluEdges, FarGatesGiveZeroOrTheirValue) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Tensor gate = bench.zeros(DType::f32, {4}), up = bench.tensor("ones", DType::f32, {4}, 0.0, 1.0);
  gate.data<float>()[0] = 1000.0f;
  gate.data<float>()[1] = -1000.0f;
  gate.data<float>()[3] = NAN;
  const Var y = ops::swiglu(tape, tape.constant(gate), tape.constant(up));
  EXPECT_EQ(y.value().data<float>()[0], 1000.0f);
  EXPECT_NEAR(y.value().data<float>()[1], 0.0f, 1e-30f);
  EXPECT_EQ(y.value().data<float>()[2], 0.0f);
  EXPECT_TRUE(std::isnan(y.value().data<float>()[3]));
}

TEST(SwigluBackward, OneVariableMayBeGateAndUp) {
  OpBench bench;
  test::expect_gradients(bench, {bench.tensor("x", DType::f64, {7})}, {},
                         [](Tape& tape, const std::vector<Var>& v) { return ops::swiglu(tape, v[0], v[0]); });
}

TEST(SwigluBackward, BitsDoNotDependOnTheNumberOfThreads) {
  test::expect_same_on_any_thread_count([] {
    OpBench bench;
    Tape& tape = bench.tape();
    const Var gate = tape.variable(bench.tensor("gate", DType::f32, {40000}));
    const Var up = tape.variable(bench.tensor("up", DType::f32, {40000}));
    const Var y = ops::swiglu(tape, gate, up);
    tape.backward(y, bench.tensor("dy", DType::f32, {40000}));
    return test::concatenate({y.value(), tape.grad(gate), tape.grad(up)});
  });
}

TEST(SwigluMisuse, ShapesAndDtypesAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Var x = tape.constant(bench.tensor("x", DType::f32, {2, 3}));
  EXPECT_THROW(ops::swiglu(tape, x, tape.constant(bench.tensor("y", DType::f32, {3, 2}))), Error);
  EXPECT_THROW(ops::swiglu(tape, x, tape.constant(bench.tensor("y", DType::bf16, {2, 3}))), Error);
}

}  // namespace
}  // namespace ziggurat
