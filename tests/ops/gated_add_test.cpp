#include <cmath>

#include "tests/support/op_test.h"
#include <ziggurat/ops/gated_add.h>

namespace ziggurat {
namespace {

using test::OpBench;

struct GatedAddCase {
  int64_t rows, cols;
};
void PrintTo(const GatedAddCase& c, std::ostream* os) { *os << c.rows << "x" << c.cols; }

class GatedAdd : public testing::TestWithParam<GatedAddCase> {};

TEST_P(GatedAdd, ForwardEqualsNaiveReference) {
  const auto [rows, cols] = GetParam();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    Tape& tape = bench.tape();
    const Tensor a = bench.tensor("a", dtype, {rows, cols}), b = bench.tensor("b", dtype, {rows, cols});
    const Tensor logits = bench.tensor("logits", accum_dtype(dtype), {rows, 1});
    const Var y = ops::gated_add(tape, tape.constant(a), tape.constant(b), tape.constant(logits));
    const auto as = test::to_doubles(a), bs = test::to_doubles(b), ls = test::to_doubles(logits);
    std::vector<double> want;
    for (int64_t i = 0; i < rows * cols; ++i) {
      const auto row = static_cast<size_t>(i / cols), at = static_cast<size_t>(i);
      want.push_back(as[at] + bs[at] / (1 + std::exp(-ls[row])));
    }
    test::expect_close(y.value(), want, 4, 1.0, to_string(dtype));
  }
}

TEST_P(GatedAdd, GradientsEqualFiniteDifferences) {
  const auto [rows, cols] = GetParam();
  if (rows * cols > 200) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  const std::vector<Tensor> inputs = {bench.tensor("a", DType::f64, {rows, cols}),
                                      bench.tensor("b", DType::f64, {rows, cols}),
                                      bench.tensor("logits", DType::f64, {rows, 1})};
  test::expect_gradients(bench, inputs, {}, [](Tape& tape, const std::vector<Var>& v) {
    // Everything twice: the second use adds to gradients that are already there.
    return ops::gated_add(tape, ops::gated_add(tape, v[0], v[1], v[2]), v[0], v[2]);
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, GatedAdd,
                         testing::Values(GatedAddCase{0, 3}, GatedAddCase{1, 1}, GatedAddCase{2, 0},
                                         GatedAddCase{5, 7}, GatedAddCase{33, 3}, GatedAddCase{67, 513}));

TEST(GatedAddEdges, FarLogitsOpenAndCloseTheGate) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Tensor a = bench.tensor("a", DType::f32, {2, 3}), b = bench.tensor("b", DType::f32, {2, 3});
  const Tensor logits = bench.zeros(DType::f32, {2, 1});
  logits.data<float>()[0] = 1000.0f;
  logits.data<float>()[1] = -1000.0f;
  const Var y = ops::gated_add(tape, tape.constant(a), tape.constant(b), tape.constant(logits));
  const auto as = test::to_doubles(a), bs = test::to_doubles(b), ys = test::to_doubles(y.value());
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(ys[i], static_cast<float>(as[i] + bs[i]));
  for (size_t i = 3; i < 6; ++i) EXPECT_EQ(ys[i], as[i]);
}

TEST(GatedAddBackward, OneVariableMayBeBothTerms) {
  OpBench bench;
  test::expect_gradients(
      bench, {bench.tensor("x", DType::f64, {3, 4}), bench.tensor("logits", DType::f64, {3, 1})}, {},
      [](Tape& tape, const std::vector<Var>& v) { return ops::gated_add(tape, v[0], v[0], v[1]); });
}

TEST(GatedAddBackward, BitsDoNotDependOnTheNumberOfThreads) {
  test::expect_same_on_any_thread_count([] {
    OpBench bench;
    Tape& tape = bench.tape();
    const Var a = tape.variable(bench.tensor("a", DType::f32, {101, 300}));
    const Var b = tape.variable(bench.tensor("b", DType::f32, {101, 300}));
    const Var logits = tape.variable(bench.tensor("logits", DType::f32, {101, 1}));
    const Var y = ops::gated_add(tape, a, b, logits);
    tape.backward(y, bench.tensor("dy", DType::f32, {101, 300}));
    return test::concatenate({y.value(), tape.grad(a), tape.grad(b), tape.grad(logits)});
  });
}

TEST(GatedAddMisuse, ShapesAndDtypesAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const auto constant = [&](DType dtype, Shape shape) {
    return tape.constant(bench.tensor("x", dtype, shape));
  };
  const Var x = constant(DType::bf16, {2, 3}), logits = constant(DType::f32, {2, 1});
  EXPECT_THROW(ops::gated_add(tape, constant(DType::bf16, {6}), constant(DType::bf16, {6}), logits), Error);
  EXPECT_THROW(ops::gated_add(tape, x, constant(DType::bf16, {3, 2}), logits), Error);
  EXPECT_THROW(ops::gated_add(tape, x, constant(DType::f32, {2, 3}), logits), Error);
  EXPECT_THROW(ops::gated_add(tape, x, x, constant(DType::f32, {2})), Error);
  EXPECT_THROW(ops::gated_add(tape, x, x, constant(DType::f32, {2, 2})), Error);
  EXPECT_THROW(ops::gated_add(tape, x, x, constant(DType::bf16, {2, 1})), Error);
}

}  // namespace
}  // namespace ziggurat
