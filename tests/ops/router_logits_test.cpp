#include <cmath>

#include "tests/support/op_test.h"
#include <ziggurat/core/philox.h>
#include <ziggurat/ops/router_logits.h>

namespace ziggurat {
namespace {

using test::OpBench;
constexpr int64_t kLayer = 3;

struct RouterLogitsCase {
  int64_t rows, cols, experts;
  bool bias;
  double jitter_eps;
};
void PrintTo(const RouterLogitsCase& c, std::ostream* os) {
  *os << c.rows << "x" << c.cols << "->" << c.experts << (c.bias ? " bias" : "") << " jitter "
      << c.jitter_eps;
}

class RouterLogits : public testing::TestWithParam<RouterLogitsCase> {};

TEST_P(RouterLogits, ForwardEqualsNaiveReference) {
  const RouterLogitsCase c = GetParam();
  for (const Reproducible mode : {Reproducible::layout, Reproducible::strict}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      OpBench bench(mode);
      const Tensor x = bench.tensor("x", dtype, {c.rows, c.cols});
      const Param& w = bench.param("w", accum_dtype(dtype), {c.experts, c.cols});
      const Param& b = bench.param("b", accum_dtype(dtype), {c.experts});
      const Var y = ops::router_logits(bench.tape(), bench.tape().constant(x), w, c.bias ? &b : nullptr,
                                       c.jitter_eps, kLayer);
      EXPECT_EQ(y.dtype(), accum_dtype(dtype));

      const MicroBatch& m = bench.micro_batch;
      const Philox rng(m.seed, Purpose::router_jitter, kLayer, m.moment());
      const auto xs = test::to_doubles(x), ws = test::to_doubles(w.value), bs = test::to_doubles(b.value);
      std::vector<double> want;
      for (int64_t i = 0; i < c.rows; ++i) {
        for (int64_t e = 0; e < c.experts; ++e) {
          double z = c.bias ? bs[static_cast<size_t>(e)] : 0;
          for (int64_t k = 0; k < c.cols; ++k) {
            const auto at = static_cast<size_t>(i * c.cols + k);
            const double noise = 1 + c.jitter_eps * (2.0 * rng.uniform(at) - 1);
            z += xs[at] * noise * ws[static_cast<size_t>(e * c.cols + k)];
          }
          want.push_back(z);
        }
      }
      test::expect_close(y.value(), want, c.cols + 4, 2.0, to_string(dtype));
    }
  }
}

TEST_P(RouterLogits, GradientsEqualFiniteDifferences) {
  const RouterLogitsCase c = GetParam();
  if (c.rows * c.cols * c.experts > 500) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  Param& w = bench.param("w", DType::f64, {c.experts, c.cols});
  Param& b = bench.param("b", DType::f64, {c.experts});
  std::vector<Param*> params = {&w};
  if (c.bias) params.push_back(&b);
  test::expect_gradients(bench, {bench.tensor("x", DType::f64, {c.rows, c.cols})}, params,
                         [&](Tape& tape, const std::vector<Var>& v) {
                           return ops::router_logits(tape, v[0], w, c.bias ? &b : nullptr, c.jitter_eps,
                                                     kLayer);
                         });
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, RouterLogits,
    testing::Values(RouterLogitsCase{0, 3, 2, true, 0.01}, RouterLogitsCase{1, 1, 1, true, 0.5},
                    RouterLogitsCase{3, 5, 7, false, 0.0}, RouterLogitsCase{3, 5, 7, true, 0.1},
                    RouterLogitsCase{7, 5, 2, true, 0.0}, RouterLogitsCase{259, 65, 33, true, 0.01}));

TEST(RouterLogitsBackward, AddsToTheGradientOfXInItsDtype) {
  // In bf16, x's gradient is the f32 product rounded once, then added to what is there.
  OpBench bench;
  Tape& tape = bench.tape();
  Param& w = bench.param("w", DType::f32, {2, 3});
  const Var x = tape.variable(bench.tensor("x", DType::bf16, {4, 3}));
  const Tensor dy = bench.tensor("dy", DType::f32, {4, 2});
  tape.backward(ops::router_logits(tape, x, w, nullptr, 0.0, 0), dy);
  tape.backward(ops::router_logits(tape, x, w, nullptr, 0.0, 0), dy);
  const auto d = test::to_doubles(dy), ws = test::to_doubles(w.value);
  std::vector<double> want;
  for (size_t i = 0; i < 4; ++i) {
    for (size_t c = 0; c < 3; ++c) want.push_back(2 * (d[2 * i] * ws[c] + d[2 * i + 1] * ws[3 + c]));
  }
  test::expect_close(tape.grad(x), want, 2, 4.0);
}

TEST(RouterLogitsJitter, LayersAndMomentsDrawTheirOwnNoiseAndEvaluationNone) {
  OpBench bench;
  const Tensor x = bench.tensor("x", DType::f32, {5, 8});
  const Param& w = bench.param("w", DType::f32, {4, 8});
  const auto logits = [&](const MicroBatch& m, double eps, int64_t layer) {
    bench.tape().begin(m);
    return test::to_doubles(
        ops::router_logits(bench.tape(), bench.tape().constant(x), w, nullptr, eps, layer).value());
  };
  const auto base = logits({.seed = 1, .step = 1}, 0.01, 0);
  EXPECT_EQ(base, logits({.seed = 1, .step = 1}, 0.01, 0));
  EXPECT_NE(base, logits({.seed = 1, .step = 1}, 0.01, 1));
  EXPECT_NE(base, logits({.seed = 1, .step = 2}, 0.01, 0));
  EXPECT_EQ(logits({.seed = 1, .step = 1, .training = false}, 0.01, 0),
            logits({.seed = 1, .step = 1}, 0.0, 0));
}

TEST(RouterLogitsBackward, BitsDoNotDependOnTheNumberOfThreads) {
  test::expect_same_on_any_thread_count([] {
    OpBench bench(Reproducible::strict);
    Param& w = bench.param("w", DType::f32, {40, 300});
    Param& b = bench.param("b", DType::f32, {40});
    Tape& tape = bench.tape();
    const Var x = tape.variable(bench.tensor("x", DType::bf16, {257, 300}));
    const Var y = ops::router_logits(tape, x, w, &b, 0.01, kLayer);
    tape.backward(y, bench.tensor("dy", DType::f32, {257, 40}));
    return test::concatenate({y.value(), tape.grad(x), w.grad, b.grad});
  });
}

TEST(RouterLogitsMisuse, ShapesDtypesAndJitterAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Param& w = bench.param("w", DType::f32, {4, 3});
  const Param& b = bench.param("b", DType::f32, {4});
  const Param& long_bias = bench.param("b", DType::f32, {5});
  const Param& wide_bias = bench.param("b", DType::f64, {4});
  const Param& narrow = bench.param("w", DType::bf16, {4, 3});
  const Var x = tape.constant(bench.tensor("x", DType::bf16, {2, 3}));
  const Var wrong_width = tape.constant(bench.tensor("x", DType::bf16, {2, 2}));
  EXPECT_THROW(ops::router_logits(tape, wrong_width, w, &b, 0.0, 0), Error);
  EXPECT_THROW(ops::router_logits(tape, x, w, &long_bias, 0.0, 0), Error);
  EXPECT_THROW(ops::router_logits(tape, x, w, &wide_bias, 0.0, 0), Error);
  EXPECT_THROW(ops::router_logits(tape, x, narrow, &b, 0.0, 0), Error);
  EXPECT_THROW(ops::router_logits(tape, x, w, &b, -0.1, 0), Error);
  EXPECT_THROW(ops::router_logits(tape, x, w, &b, 1.0, 0), Error);
}

}  // namespace
}  // namespace ziggurat
