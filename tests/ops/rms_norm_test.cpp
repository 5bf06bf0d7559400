#include <cmath>

#include "tests/support/op_test.h"
#include <ziggurat/ops/add.h>
#include <ziggurat/ops/rms_norm.h>

namespace ziggurat {
namespace {

using test::OpBench;
constexpr double kEps = 1e-5;

struct RmsNormCase {
  int64_t rows, cols;
};
void PrintTo(const RmsNormCase& c, std::ostream* os) { *os << c.rows << "x" << c.cols; }

class RmsNorm : public testing::TestWithParam<RmsNormCase> {};

TEST_P(RmsNorm, ForwardEqualsNaiveReference) {
  const auto [rows, cols] = GetParam();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    const Tensor x = bench.tensor("x", dtype, {rows, cols}, 2.0, 1.0);
    const Param& w = bench.param("w", accum_dtype(dtype), {cols});
    const Var y = ops::rms_norm(bench.tape(), bench.tape().constant(x), w, kEps);

    const auto xs = test::to_doubles(x), ws = test::to_doubles(w.value);
    std::vector<double> want;
    for (int64_t i = 0; i < rows; ++i) {
      const auto at = [&, i = i, cols = cols](int64_t j) { return xs[static_cast<size_t>(i * cols + j)]; };
      double square = 0;
      for (int64_t j = 0; j < cols; ++j) square += at(j) * at(j) / static_cast<double>(cols);
      for (int64_t j = 0; j < cols; ++j) {
        want.push_back(at(j) / std::sqrt(square + kEps) * ws[static_cast<size_t>(j)]);
      }
    }
    test::expect_close(y.value(), want, cols, 4.0, to_string(dtype));
  }
}

TEST_P(RmsNorm, GradientsEqualFiniteDifferences) {
  const auto [rows, cols] = GetParam();
  if (rows * cols > 200) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  Param& w = bench.param("w", DType::f64, {cols});
  test::expect_gradients(
      bench, {bench.tensor("x", DType::f64, {rows, cols})}, {&w},
      [&](Tape& tape, const std::vector<Var>& v) { return ops::rms_norm(tape, v[0], w, 1e-2); });
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsNorm,
                         testing::Values(RmsNormCase{0, 3}, RmsNormCase{1, 1}, RmsNormCase{3, 1},
                                         RmsNormCase{5, 7}, RmsNormCase{2, 64}, RmsNormCase{67, 2},
                                         RmsNormCase{131, 515}));

TEST(RmsNormBackward, AddsToGradientsThatAreAlreadyThere) {
  OpBench bench;
  Param& w = bench.param("w", DType::f64, {6});
  test::expect_gradients(bench, {bench.tensor("x", DType::f64, {3, 6})}, {&w},
                         [&](Tape& tape, const std::vector<Var>& v) {
                           const Var h = ops::rms_norm(tape, v[0], w, 1e-2);
                           return ops::add(tape, h, ops::rms_norm(tape, v[0], w, 1.0));
                         });
}

TEST(RmsNormBackward, FrozenParametersGetNothing) {
  OpBench bench;
  Param w = bench.param("w", DType::f32, {4});
  w.grad = Tensor();
  Tape& tape = bench.tape();
  const Var x = tape.variable(bench.tensor("x", DType::f32, {2, 4}));
  tape.backward(ops::rms_norm(tape, x, w, kEps), bench.tensor("dy", DType::f32, {2, 4}));
  EXPECT_TRUE(tape.grad(x));
}

TEST(RmsNormBackward, BitsDoNotDependOnTheNumberOfThreads) {
  test::expect_same_on_any_thread_count([] {
    OpBench bench;
    Param& w = bench.param("w", DType::f32, {300});
    Tape& tape = bench.tape();
    const Var x = tape.variable(bench.tensor("x", DType::f32, {101, 300}));
    const Var y = ops::rms_norm(tape, x, w, kEps);
    tape.backward(y, bench.tensor("dy", DType::f32, {101, 300}));
    return test::concatenate({y.value(), tape.grad(x), w.grad});
  });
}

TEST(RmsNormMisuse, ShapesDtypesAndEpsAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Param& w = bench.param("w", DType::f32, {4});
  const Param& short_one = bench.param("short", DType::f32, {3});
  const Param& wide_one = bench.param("wide", DType::f64, {4});
  const Param& none = bench.param("none", DType::f32, {0});
  const Var x = tape.constant(bench.tensor("x", DType::f32, {2, 4}));
  const Var flat = tape.constant(bench.tensor("x", DType::f32, {4}));
  const Var empty = tape.constant(bench.tensor("x", DType::f32, {2, 0}));
  EXPECT_THROW(ops::rms_norm(tape, flat, w, kEps), Error);
  EXPECT_THROW(ops::rms_norm(tape, empty, none, kEps), Error);
  EXPECT_THROW(ops::rms_norm(tape, x, short_one, kEps), Error);
  EXPECT_THROW(ops::rms_norm(tape, x, wide_one, kEps), Error);
  EXPECT_THROW(ops::rms_norm(tape, x, w, 0.0), Error);
}

}  // namespace
}  // namespace ziggurat
