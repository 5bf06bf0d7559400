#include <cmath>

#include "tests/support/op_test.h"
#include <ziggurat/ops/grouped_linear.h>
#include <ziggurat/ops/linear.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using ops::Activation;
using ops::Segment;
using test::OpBench;

struct GroupedCase {
  std::vector<std::array<int64_t, 3>> segments;  // rows, expert, source
  int64_t in, out, experts;
  bool bias;
  Activation activation;
};
void PrintTo(const GroupedCase& c, std::ostream* os) {
  *os << c.experts << " experts " << c.in << "->" << c.out << (c.bias ? " bias" : "") << " activation "
      << static_cast<int>(c.activation) << ", segments (rows, expert, source)";
  for (const auto& s : c.segments) *os << " (" << s[0] << "," << s[1] << "," << s[2] << ")";
}

std::vector<Segment> make_segments(const GroupedCase& c) {
  std::vector<Segment> segments;
  int64_t row = 0;
  for (const auto& s : c.segments) {
    segments.push_back({row, s[0], static_cast<int32_t>(s[1]), static_cast<int32_t>(s[2])});
    row += s[0];
  }
  return segments;
}
int64_t row_count(const std::vector<Segment>& segments) {
  return segments.empty() ? 0 : segments.back().row_begin + segments.back().rows;
}

class GroupedLinear : public testing::TestWithParam<GroupedCase> {};

// The same segment by segment through `linear`, whose own reference is naive.
TEST_P(GroupedLinear, EqualsOneLinearPerSegment) {
  const GroupedCase c = GetParam();
  const auto segments = make_segments(c);
  const int64_t rows = row_count(segments);
  for (const Reproducible mode : {Reproducible::layout, Reproducible::strict}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      OpBench bench(mode);
      Tape& tape = bench.tape();
      const DType accum = accum_dtype(dtype);
      const Tensor x = bench.tensor("x", dtype, {rows, c.in}), dy = bench.tensor("dy", dtype, {rows, c.out});
      Param& w = bench.param("w", dtype, {c.experts, c.out, c.in});
      Param& b = bench.param("b", accum, {c.experts, c.out});
      const Var xv = tape.variable(x);
      const Var y = ops::grouped_linear(tape, xv, segments, w, c.bias ? &b : nullptr, c.activation);
      const auto got = test::to_doubles(y.value());
      tape.backward(y, dy);
      const Tensor dx = bench.zeros(dtype, {rows, c.in});
      copy(tape.grad(xv), dx);

      std::vector<double> want_y, want_dx;
      Param one{w.value, bench.zeros(accum, w.value.shape())},
          one_bias{b.value, bench.zeros(accum, b.value.shape())};
      for (const Segment& s : segments) {
        const auto slice = [&](const Tensor& t) {
          const Tensor row = t.rows(s.expert, s.expert + 1);
          return t.rank() == 3 ? row.reshape({c.out, c.in}) : row.reshape({c.out});
        };
        const Param we{slice(one.value), slice(one.grad)}, be{slice(one_bias.value), slice(one_bias.grad)};
        tape.begin(bench.micro_batch);
        const Var xs = tape.variable(x.rows(s.row_begin, s.row_begin + s.rows));
        const Var ys = ops::linear(tape, xs, we, c.bias ? &be : nullptr, c.activation);
        for (const double v : test::to_doubles(ys.value())) want_y.push_back(v);
        tape.backward(ys, dy.rows(s.row_begin, s.row_begin + s.rows));
        for (const double v : test::to_doubles(tape.grad(xs))) want_dx.push_back(v);
      }
      const double in = 2 * std::sqrt(c.in + 1.0), out = 2 * std::sqrt(c.out + 1.0);
      if (dtype == DType::f64) {
        EXPECT_EQ(got, want_y);
      }
      test::expect_close(dx, want_dx, c.out, out, "dx");
      test::expect_close(w.grad, test::to_doubles(one.grad), rows + 1, 2 * std::sqrt(rows + 1.0), "dweight");
      test::expect_close(b.grad, test::to_doubles(one_bias.grad), rows + 1, 2 * std::sqrt(rows + 1.0),
                         "dbias");
      tape.begin(bench.micro_batch);
      test::expect_close(
          ops::grouped_linear(tape, tape.constant(x), segments, w, c.bias ? &b : nullptr, c.activation)
              .value(),
          want_y, c.in, in, to_string(dtype));
    }
  }
}

TEST_P(GroupedLinear, GradientsEqualFiniteDifferences) {
  const GroupedCase c = GetParam();
  const auto segments = make_segments(c);
  if (row_count(segments) > 30) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  Param& w = bench.param("w", DType::f64, {c.experts, c.out, c.in});
  Param& b = bench.param("b", DType::f64, {c.experts, c.out});
  std::vector<Param*> params = {&w};
  if (c.bias) params.push_back(&b);
  test::expect_gradients(bench, {bench.tensor("x", DType::f64, {row_count(segments), c.in})}, params,
                         [&](Tape& tape, const std::vector<Var>& v) {
                           return ops::grouped_linear(tape, v[0], segments, w, c.bias ? &b : nullptr,
                                                      c.activation);
                         });
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, GroupedLinear,
    testing::Values(
        GroupedCase{{}, 3, 2, 2, true, Activation::none},
        GroupedCase{{{0, 0, 0}, {0, 1, 0}}, 3, 2, 2, true, Activation::gelu_tanh},
        GroupedCase{{{1, 0, 0}}, 1, 1, 1, false, Activation::gelu_tanh},
        GroupedCase{{{3, 0, 0}, {0, 1, 0}, {5, 2, 0}}, 5, 7, 3, true, Activation::gelu_tanh},
        GroupedCase{{{2, 1, 0}, {3, 1, 1}, {1, 0, 1}, {2, 1, 0}}, 4, 3, 2, true, Activation::gelu_erf},
        GroupedCase{{{300, 0, 0}, {7, 1, 0}, {530, 2, 0}}, 65, 258, 3, true, Activation::gelu_tanh}));

// What a segment computes must not depend on its neighbours, nor on the number of threads.
TEST(GroupedLinear, StrictBitsDependOnTheSegmentAlone) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    OpBench bench(Reproducible::strict);
    Tape& tape = bench.tape();
    const int64_t n = 37, in = 384, out = 200;
    const Tensor mine = bench.tensor("mine", dtype, {n, in}), dmine = bench.tensor("dmine", dtype, {n, out});
    Param& w = bench.param("w", dtype, {2, out, in});
    const auto run = [&](int64_t before, int64_t after) {
      const Tensor x = bench.tensor("x", dtype, {before + n + after, in}),
                   dy = bench.tensor("dy", dtype, {before + n + after, out});
      copy(mine, x.rows(before, before + n));
      copy(dmine, dy.rows(before, before + n));
      w.source_stride = 0;
      const Tensor grads = bench.zeros(DType::f32, {3, 2, out * in});
      w.grad = Tensor(grads.raw(), DType::f32, {2, out, in}), w.source_stride = 2 * out * in;
      const std::vector<Segment> segments = {{0, before, 0, 0}, {before, n, 1, 1}, {before + n, after, 1, 2}};
      tape.begin(bench.micro_batch);
      const Var xv = tape.variable(x);
      const Var y = ops::grouped_linear(tape, xv, segments, w, nullptr, Activation::gelu_tanh);
      tape.backward(y, dy);
      std::vector<double> bits = test::to_doubles(y.value().rows(before, before + n));
      for (const double v : test::to_doubles(tape.grad(xv).rows(before, before + n))) bits.push_back(v);
      for (const double v : test::to_doubles(grads.rows(1, 2))) bits.push_back(v);
      return bits;
    };
    const auto alone = run(0, 0);
    EXPECT_EQ(run(11, 5), alone) << to_string(dtype);
    EXPECT_EQ(run(300, 257), alone) << to_string(dtype);
    set_thread_count(1);
    EXPECT_EQ(run(0, 0), alone) << to_string(dtype);
    set_thread_count(available_cores());
  }
}

// Outside training a few rows of each expert take a kernel of their own: the reference is `linear` again.
TEST(GroupedLinear, AFewRowsOfEachExpertEqualOneLinearPerSegment) {
  const std::vector<Segment> segments = {{0, 1, 2, 0}, {1, 0, 0, 0}, {1, 6, 1, 0}, {7, 2, 2, 1}};
  constexpr int64_t kRows = 9, kIn = 70, kOut = 33, kExperts = 3;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    MicroBatch evaluation = bench.micro_batch;
    evaluation.training = false;
    Tape& tape = bench.tape();
    tape.begin(evaluation);
    const Tensor x = bench.tensor("x", dtype, {kRows, kIn});
    const Param& w = bench.param("w", dtype, {kExperts, kOut, kIn});
    const Param& b = bench.param("b", accum_dtype(dtype), {kExperts, kOut});
    const auto got = test::to_doubles(
        ops::grouped_linear(tape, tape.constant(x), segments, w, &b, Activation::gelu_tanh).value());
    std::vector<double> want;
    for (const Segment& s : segments) {
      const Param expert_w{w.value.rows(s.expert, s.expert + 1).reshape({kOut, kIn}), {}},
          expert_b{b.value.rows(s.expert, s.expert + 1).reshape({kOut}), {}};
      const Var rows = tape.constant(x.rows(s.row_begin, s.row_begin + s.rows));
      const auto y =
          test::to_doubles(ops::linear(tape, rows, expert_w, &expert_b, Activation::gelu_tanh).value());
      want.insert(want.end(), y.begin(), y.end());
    }
    EXPECT_EQ(got, want) << to_string(dtype);  // one kernel, and a row's bits don't depend on its neighbours
  }
}

TEST(GroupedLinearMisuse, ShapesDtypesAndSegmentsAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Param& w = bench.param("w", DType::f32, {2, 4, 3});
  Param& b = bench.param("b", DType::f32, {2, 5});
  Param& apart = bench.param("b", DType::f32, {2, 4});
  apart.source_stride = 8;
  const Var x = tape.constant(bench.tensor("x", DType::f32, {6, 3}));
  const std::vector<Segment> good = {{0, 4, 0, 0}, {4, 2, 1, 0}}, gap = {{0, 3, 0, 0}, {4, 2, 1, 0}},
                             few = {{0, 4, 0, 0}}, no_expert = {{0, 6, 2, 0}};
  EXPECT_NO_THROW(ops::grouped_linear(tape, x, good, w));
  EXPECT_THROW(ops::grouped_linear(tape, x, gap, w), Error);
  EXPECT_THROW(ops::grouped_linear(tape, x, few, w), Error);
  EXPECT_THROW(ops::grouped_linear(tape, x, no_expert, w), Error);
  EXPECT_THROW(ops::grouped_linear(tape, x, good, w, &b), Error);
  EXPECT_THROW(ops::grouped_linear(tape, x, good, w, &apart), Error);
  EXPECT_THROW(ops::grouped_linear(tape, tape.constant(bench.tensor("x", DType::f32, {6, 2})), good, w),
               Error);
  EXPECT_THROW(ops::grouped_linear(tape, tape.constant(bench.tensor("x", DType::bf16, {6, 3})), good, w),
               Error);
}

}  // namespace
}  // namespace ziggurat
