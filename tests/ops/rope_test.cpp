#include <cmath>

#include "tests/support/op_test.h"
#include <ziggurat/ops/rope.h>

namespace ziggurat {
namespace {

using ops::AttentionShape;
using test::OpBench;

constexpr double kTheta = 100;

// Counting on within a sequence, and in no order.
std::vector<std::vector<int32_t>> positions_for(const AttentionShape& s) {
  std::vector<std::vector<int32_t>> positions(2);
  for (int64_t row = 0; row < s.rows(); ++row) {
    positions[0].push_back(static_cast<int32_t>(row % s.length));
    positions[1].push_back(static_cast<int32_t>((row * row + 2) % s.length));
  }
  return positions;
}

// By complex numbers: the pair (x_j, x_{j + d/2}) times e^(i t theta^(-2j/d)).
std::vector<double> naive(const std::vector<double>& x, const AttentionShape& s,
                          const std::vector<int32_t>& positions) {
  std::vector<double> y = x;
  for (int64_t row = 0; row < s.rows(); ++row) {
    for (int64_t head = 0; head < s.heads + s.kv_heads; ++head) {
      for (int64_t j = 0; j < s.head_dim / 2; ++j) {
        const auto low = static_cast<size_t>(row * s.width() + head * s.head_dim + j);
        const size_t high = low + static_cast<size_t>(s.head_dim / 2);
        const double angle =
            static_cast<double>(positions[static_cast<size_t>(row)]) *
            std::pow(kTheta, -2.0 * static_cast<double>(j) / static_cast<double>(s.head_dim));
        y[low] = x[low] * std::cos(angle) - x[high] * std::sin(angle);
        y[high] = x[high] * std::cos(angle) + x[low] * std::sin(angle);
      }
    }
  }
  return y;
}

class Rope : public testing::TestWithParam<AttentionShape> {};

TEST_P(Rope, ForwardEqualsNaiveReference) {
  const AttentionShape s = GetParam();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    const Tensor x = bench.tensor("x", dtype, {s.rows(), s.width()});
    const auto positions = positions_for(s);
    const Var y = ops::rope(bench.tape(), bench.tape().constant(x), s, kTheta);
    test::expect_close(y.value(), naive(test::to_doubles(x), s, positions[0]), 2, 4, to_string(dtype));
    const Var z = ops::rope(bench.tape(), bench.tape().constant(x), s, kTheta, positions[1].data());
    test::expect_close(z.value(), naive(test::to_doubles(x), s, positions[1]), 2, 4, to_string(dtype));
  }
}

TEST_P(Rope, GradientsEqualFiniteDifferences) {
  const AttentionShape s = GetParam();
  if (s.rows() * s.width() > 200) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  test::expect_gradients(bench, {bench.tensor("x", DType::f64, {s.rows(), s.width()})}, {},
                         [&, positions = positions_for(s)](Tape& tape, const std::vector<Var>& v) {
                           const Var y = ops::rope(tape, v[0], s, kTheta);
                           return ops::rope(tape, y, s, kTheta, positions[1].data());
                         });
}

// Backward adds to a gradient that is there, in every dtype: its result is first + inverse rotation of dy.
TEST_P(Rope, BackwardAddsTheInverseRotation) {
  const AttentionShape s = GetParam();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    Tape& tape = bench.tape();
    const Var x = tape.variable(bench.tensor("x", dtype, {s.rows(), s.width()}));
    const Tensor first = bench.tensor("first", dtype, x.shape());
    const Tensor r = bench.tensor("r", dtype, x.shape());
    const Var y = ops::rope(tape, x, s, kTheta);
    tape.pass_grad(x, first);
    tape.backward(y, r);

    // Rotating the difference forward must give r back.
    auto difference = test::to_doubles(tape.grad(x));
    const auto firsts = test::to_doubles(first);
    for (size_t i = 0; i < difference.size(); ++i) difference[i] -= firsts[i];
    test::expect_close(r, naive(difference, s, positions_for(s)[0]), 2, 8, to_string(dtype));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Rope,
                         testing::Values(AttentionShape{0, 3, 1, 1, 2}, AttentionShape{2, 0, 1, 1, 2},
                                         AttentionShape{1, 1, 1, 1, 2}, AttentionShape{2, 5, 2, 1, 4},
                                         AttentionShape{1, 3, 3, 3, 6}, AttentionShape{2, 37, 3, 3, 10}));

TEST(RopeMisuse, ShapeAndThetaAreNamed) {
  OpBench bench;
  const auto run = [&](const AttentionShape& s, int64_t width, double theta) {
    const Var x = bench.tape().constant(bench.tensor("x", DType::f32, {6, width}));
    return ops::rope(bench.tape(), x, s, theta);
  };
  EXPECT_NO_THROW(run({2, 3, 2, 2, 2}, 12, 1e4));
  EXPECT_THROW(run({2, 3, 2, 2, 2}, 11, 1e4), Error);
  EXPECT_THROW(run({2, 3, 2, 2, 3}, 18, 1e4), Error);  // odd head_dim
  EXPECT_THROW(run({2, 3, 3, 2, 2}, 14, 1e4), Error);  // 3 heads on 2 key heads
  EXPECT_THROW(run({2, 3, 2, 2, 2}, 12, 0), Error);
}

TEST(RopeMisuse, PositionsPastTheSequenceAreNamed) {
  OpBench bench;
  const Var x = bench.tape().constant(bench.tensor("x", DType::f32, {6, 12}));
  const auto run = [&](const std::vector<int32_t>& positions) {
    return ops::rope(bench.tape(), x, {2, 3, 2, 2, 2}, kTheta, positions.data());
  };
  EXPECT_NO_THROW(run({0, 0, 2, 1, 2, 0}));
  EXPECT_THROW(run({0, 0, 2, 1, 3, 0}), Error);
  EXPECT_THROW(run({0, 0, 2, 1, 2, -1}), Error);
}

}  // namespace
}  // namespace ziggurat
