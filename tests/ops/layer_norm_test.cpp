#include <algorithm>
#include <cmath>

#include "tests/support/op_test.h"
#include <ziggurat/ops/add.h>
#include <ziggurat/ops/layer_norm.h>

namespace ziggurat {
namespace {

using test::OpBench;
constexpr double kEps = 1e-5;

struct LayerNormCase {
  int64_t rows, cols;
};
void PrintTo(const LayerNormCase& c, std::ostream* os) { *os << c.rows << "x" << c.cols; }

class LayerNorm : public testing::TestWithParam<LayerNormCase> {};

TEST_P(LayerNorm, ForwardEqualsNaiveReference) {
  const auto [rows, cols] = GetParam();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    const Tensor x = bench.tensor("x", dtype, {rows, cols}, 2.0, 3.0);
    const Param& w = bench.param("w", accum_dtype(dtype), {cols});
    const Param& b = bench.param("b", accum_dtype(dtype), {cols});
    const Var y = ops::layer_norm(bench.tape(), bench.tape().constant(x), w, b, kEps);

    const auto xs = test::to_doubles(x), ws = test::to_doubles(w.value), bs = test::to_doubles(b.value);
    std::vector<double> want;
    double magnitude = 1;
    for (int64_t i = 0; i < rows; ++i) {
      const auto at = [&, i = i, cols = cols](int64_t j) { return xs[static_cast<size_t>(i * cols + j)]; };
      double mean = 0, variance = 0;
      for (int64_t j = 0; j < cols; ++j) mean += at(j) / static_cast<double>(cols);
      for (int64_t j = 0; j < cols; ++j) variance += std::pow(at(j) - mean, 2) / static_cast<double>(cols);
      for (int64_t j = 0; j < cols; ++j) {
        const auto c = static_cast<size_t>(j);
        const double rstd = 1 / std::sqrt(variance + kEps);
        want.push_back((at(j) - mean) * rstd * ws[c] + bs[c]);
        // x - mean cancels: its rounding error is that of x, magnified by rstd.
        magnitude = std::max(magnitude, std::abs(at(j) * rstd * ws[c]) + std::abs(bs[c]));
      }
    }
    test::expect_close(y.value(), want, cols, magnitude, to_string(dtype));
  }
}

TEST_P(LayerNorm, GradientsEqualFiniteDifferences) {
  const auto [rows, cols] = GetParam();
  if (rows * cols > 200) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  Param& w = bench.param("w", DType::f64, {cols});
  Param& b = bench.param("b", DType::f64, {cols});
  test::expect_gradients(
      bench, {bench.tensor("x", DType::f64, {rows, cols})}, {&w, &b},
      [&](Tape& tape, const std::vector<Var>& v) { return ops::layer_norm(tape, v[0], w, b, 1e-2); });
}

INSTANTIATE_TEST_SUITE_P(Shapes, LayerNorm,
                         testing::Values(LayerNormCase{0, 3}, LayerNormCase{1, 1}, LayerNormCase{3, 1},
                                         LayerNormCase{5, 7}, LayerNormCase{2, 64}, LayerNormCase{67, 2},
                                         LayerNormCase{131, 515}));

TEST(LayerNormBackward, AddsToGradientsThatAreAlreadyThere) {
  OpBench bench;
  Param& w = bench.param("w", DType::f64, {6});
  Param& b = bench.param("b", DType::f64, {6});
  test::expect_gradients(bench, {bench.tensor("x", DType::f64, {3, 6})}, {&w, &b},
                         [&](Tape& tape, const std::vector<Var>& v) {
                           // x and both parameters are used twice.
                           const Var h = ops::layer_norm(tape, v[0], w, b, 1e-2);
                           return ops::add(tape, h, ops::layer_norm(tape, v[0], w, b, 1.0));
                         });
}

TEST(LayerNormBackward, FrozenParametersGetNothing) {
  OpBench bench;
  Param w = bench.param("w", DType::f32, {4});
  Param b = bench.param("b", DType::f32, {4});
  w.grad = b.grad = Tensor();
  Tape& tape = bench.tape();
  const Var x = tape.variable(bench.tensor("x", DType::f32, {2, 4}));
  tape.backward(ops::layer_norm(tape, x, w, b, kEps), bench.tensor("dy", DType::f32, {2, 4}));
  EXPECT_TRUE(tape.grad(x));
}

TEST(LayerNormBackward, BitsDoNotDependOnTheNumberOfThreads) {
  test::expect_same_on_any_thread_count([] {
    OpBench bench;
    Param& w = bench.param("w", DType::f32, {300});
    Param& b = bench.param("b", DType::f32, {300});
    Tape& tape = bench.tape();
    const Var x = tape.variable(bench.tensor("x", DType::f32, {101, 300}));
    const Var y = ops::layer_norm(tape, x, w, b, kEps);
    tape.backward(y, bench.tensor("dy", DType::f32, {101, 300}));
    return test::concatenate({y.value(), tape.grad(x), w.grad, b.grad});
  });
}

TEST(LayerNormMisuse, ShapesDtypesAndEpsAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Param& w = bench.param("w", DType::f32, {4});
  const Param& b = bench.param("b", DType::f32, {4});
  const Param& short_one = bench.param("short", DType::f32, {3});
  const Param& wide_one = bench.param("wide", DType::f64, {4});
  const Param& none = bench.param("none", DType::f32, {0});
  const Var x = tape.constant(bench.tensor("x", DType::f32, {2, 4}));
  const Var flat = tape.constant(bench.tensor("x", DType::f32, {4}));
  const Var empty = tape.constant(bench.tensor("x", DType::f32, {2, 0}));
  EXPECT_THROW(ops::layer_norm(tape, flat, w, b, kEps), Error);
  EXPECT_THROW(ops::layer_norm(tape, empty, none, none, kEps), Error);
  EXPECT_THROW(ops::layer_norm(tape, x, short_one, b, kEps), Error);
  EXPECT_THROW(ops::layer_norm(tape, x, w, short_one, kEps), Error);
  EXPECT_THROW(ops::layer_norm(tape, x, wide_one, b, kEps), Error);
  EXPECT_THROW(ops::layer_norm(tape, x, w, wide_one, kEps), Error);
  EXPECT_THROW(ops::layer_norm(tape, x, w, b, 0.0), Error);
}

}  // namespace
}  // namespace ziggurat
