#include <cmath>

#include "tests/support/op_test.h"
#include <ziggurat/ops/mix.h>

namespace ziggurat {
namespace {

using test::OpBench;

struct MixCase {
  int64_t rows, cols;
};
void PrintTo(const MixCase& c, std::ostream* os) { *os << c.rows << "x" << c.cols; }

class Mix : public testing::TestWithParam<MixCase> {};

TEST_P(Mix, ForwardEqualsNaiveReference) {
  const auto [rows, cols] = GetParam();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    Tape& tape = bench.tape();
    const Tensor a = bench.tensor("a", dtype, {rows, cols}), b = bench.tensor("b", dtype, {rows, cols});
    const Tensor logits = bench.tensor("logits", accum_dtype(dtype), {rows, 2});
    const Var y = ops::mix(tape, tape.constant(a), tape.constant(b), tape.constant(logits));
    const auto as = test::to_doubles(a), bs = test::to_doubles(b), ls = test::to_doubles(logits);
    std::vector<double> want;
    for (int64_t i = 0; i < rows * cols; ++i) {
      const auto row = static_cast<size_t>(i / cols), at = static_cast<size_t>(i);
      const double e0 = std::exp(ls[2 * row]), e1 = std::exp(ls[2 * row + 1]);
      want.push_back((e0 * as[at] + e1 * bs[at]) / (e0 + e1));
    }
    test::expect_close(y.value(), want, 4, 1.0, to_string(dtype));
  }
}

TEST_P(Mix, GradientsEqualFiniteDifferences) {
  const auto [rows, cols] = GetParam();
  if (rows * cols > 200) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  const std::vector<Tensor> inputs = {bench.tensor("a", DType::f64, {rows, cols}),
                                      bench.tensor("b", DType::f64, {rows, cols}),
                                      bench.tensor("logits", DType::f64, {rows, 2})};
  test::expect_gradients(bench, inputs, {}, [](Tape& tape, const std::vector<Var>& v) {
    // Everything twice: the second use adds to gradients that are already there.
    return ops::mix(tape, ops::mix(tape, v[0], v[1], v[2]), v[0], v[2]);
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, Mix,
                         testing::Values(MixCase{0, 3}, MixCase{1, 1}, MixCase{2, 0}, MixCase{5, 7},
                                         MixCase{33, 3}, MixCase{67, 513}));

TEST(MixEdges, FarLogitsPickOneBranch) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Tensor a = bench.tensor("a", DType::f32, {2, 3}), b = bench.tensor("b", DType::f32, {2, 3});
  const Tensor logits = bench.zeros(DType::f32, {2, 2});
  logits.data<float>()[0] = 1000.0f;
  logits.data<float>()[3] = 1000.0f;
  const Var y = ops::mix(tape, tape.constant(a), tape.constant(b), tape.constant(logits));
  EXPECT_EQ(test::to_doubles(y.value().rows(0, 1)), test::to_doubles(a.rows(0, 1)));
  EXPECT_EQ(test::to_doubles(y.value().rows(1, 2)), test::to_doubles(b.rows(1, 2)));
}

TEST(MixBackward, OneVariableMayBeBothBranches) {
  OpBench bench;
  test::expect_gradients(
      bench, {bench.tensor("x", DType::f64, {3, 4}), bench.tensor("logits", DType::f64, {3, 2})}, {},
      [](Tape& tape, const std::vector<Var>& v) { return ops::mix(tape, v[0], v[0], v[1]); });
}

TEST(MixBackward, BitsDoNotDependOnTheNumberOfThreads) {
  test::expect_same_on_any_thread_count([] {
    OpBench bench;
    Tape& tape = bench.tape();
    const Var a = tape.variable(bench.tensor("a", DType::f32, {101, 300}));
    const Var b = tape.variable(bench.tensor("b", DType::f32, {101, 300}));
    const Var logits = tape.variable(bench.tensor("logits", DType::f32, {101, 2}));
    const Var y = ops::mix(tape, a, b, logits);
    tape.backward(y, bench.tensor("dy", DType::f32, {101, 300}));
    return test::concatenate({y.value(), tape.grad(a), tape.grad(b), tape.grad(logits)});
  });
}

TEST(MixMisuse, ShapesAndDtypesAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const auto constant = [&](DType dtype, Shape shape) {
    return tape.constant(bench.tensor("x", dtype, shape));
  };
  const Var x = constant(DType::bf16, {2, 3}), logits = constant(DType::f32, {2, 2});
  EXPECT_THROW(ops::mix(tape, constant(DType::bf16, {6}), constant(DType::bf16, {6}), logits), Error);
  EXPECT_THROW(ops::mix(tape, x, constant(DType::bf16, {3, 2}), logits), Error);
  EXPECT_THROW(ops::mix(tape, x, constant(DType::f32, {2, 3}), logits), Error);
  EXPECT_THROW(ops::mix(tape, x, x, constant(DType::f32, {2, 3})), Error);
  EXPECT_THROW(ops::mix(tape, x, x, constant(DType::bf16, {2, 2})), Error);
}

}  // namespace
}  // namespace ziggurat
