#include <cmath>
#include <numeric>

#include "tests/support/op_test.h"
#include <ziggurat/ops/grouped_linear.h>
#include <ziggurat/ops/linear.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using ops::Activation;
using test::OpBench;

struct GroupedCase {
  std::vector<int64_t> rows;  // of each group expert * sources + source
  int64_t in, out, experts;
  bool bias;
  Activation activation;
};
void PrintTo(const GroupedCase& c, std::ostream* os) {
  *os << c.experts << " experts " << c.in << "->" << c.out << (c.bias ? " bias" : "") << " activation "
      << static_cast<int>(c.activation) << ", rows of the groups";
  for (const int64_t n : c.rows) *os << " " << n;
}

struct Segment {
  int64_t row_begin, rows, expert;
};
std::vector<Segment> make_segments(const std::vector<int64_t>& rows, int64_t experts) {
  std::vector<Segment> segments;
  const auto sources = static_cast<int64_t>(rows.size()) / experts;
  int64_t row = 0;
  for (const int64_t n : rows) {
    segments.push_back({row, n, static_cast<int64_t>(segments.size()) / sources});
    row += n;
  }
  return segments;
}
int64_t row_count(const GroupedCase& c) { return std::accumulate(c.rows.begin(), c.rows.end(), int64_t{0}); }

class GroupedLinear : public testing::TestWithParam<GroupedCase> {};

// The same segment by segment through `linear`, whose own reference is naive.
TEST_P(GroupedLinear, EqualsOneLinearPerSegment) {
  const GroupedCase c = GetParam();
  const int64_t rows = row_count(c);
  for (const Reproducible mode : {Reproducible::layout, Reproducible::strict}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      OpBench bench(mode);
      Tape& tape = bench.tape();
      const DType accum = accum_dtype(dtype);
      const Tensor x = bench.tensor("x", dtype, {rows, c.in}), dy = bench.tensor("dy", dtype, {rows, c.out});
      Param& w = bench.param("w", dtype, {c.experts, c.out, c.in});
      Param& b = bench.param("b", accum, {c.experts, c.out});
      const Var xv = tape.variable(x);
      const Tensor offsets = bench.ints(test::offsets_of(c.rows));
      const Var y = ops::grouped_linear(tape, xv, offsets, w, c.bias ? &b : nullptr, c.activation);
      const auto got = test::to_doubles(y.value());
      tape.backward(y, dy);
      const Tensor dx = bench.zeros(dtype, {rows, c.in});
      copy(tape.grad(xv), dx);

      std::vector<double> want_y, want_dx;
      Param one{w.value, bench.zeros(accum, w.value.shape())},
          one_bias{b.value, bench.zeros(accum, b.value.shape())};
      for (const Segment& s : make_segments(c.rows, c.experts)) {
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
          ops::grouped_linear(tape, tape.constant(x), offsets, w, c.bias ? &b : nullptr, c.activation)
              .value(),
          want_y, c.in, in, to_string(dtype));
    }
  }
}

TEST_P(GroupedLinear, GradientsEqualFiniteDifferences) {
  const GroupedCase c = GetParam();
  if (row_count(c) > 30) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  Param& w = bench.param("w", DType::f64, {c.experts, c.out, c.in});
  Param& b = bench.param("b", DType::f64, {c.experts, c.out});
  std::vector<Param*> params = {&w};
  if (c.bias) params.push_back(&b);
  const Tensor offsets = bench.ints(test::offsets_of(c.rows));
  test::expect_gradients(bench, {bench.tensor("x", DType::f64, {row_count(c), c.in})}, params,
                         [&](Tape& tape, const std::vector<Var>& v) {
                           return ops::grouped_linear(tape, v[0], offsets, w, c.bias ? &b : nullptr,
                                                      c.activation);
                         });
}

INSTANTIATE_TEST_SUITE_P(Shapes, GroupedLinear,
                         testing::Values(GroupedCase{{0, 0}, 3, 2, 2, true, Activation::none},
                                         GroupedCase{{0, 0}, 3, 2, 2, true, Activation::gelu_tanh},
                                         GroupedCase{{1}, 1, 1, 1, false, Activation::gelu_tanh},
                                         GroupedCase{{3, 0, 5}, 5, 7, 3, true, Activation::gelu_tanh},
                                         GroupedCase{{0, 1, 4, 3}, 4, 3, 2, true, Activation::gelu_erf},
                                         GroupedCase{
                                             {300, 7, 530}, 65, 258, 3, true, Activation::gelu_tanh}));

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
      const Tensor offsets = bench.ints(test::offsets_of({before, 0, 0, 0, n, after}));  // of 3 sources
      tape.begin(bench.micro_batch);
      const Var xv = tape.variable(x);
      const Var y = ops::grouped_linear(tape, xv, offsets, w, nullptr, Activation::gelu_tanh);
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
  const std::vector<int64_t> groups = {0, 0, 6, 0, 1, 2};  // of 2 sources
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
    const auto got =
        test::to_doubles(ops::grouped_linear(tape, tape.constant(x), bench.ints(test::offsets_of(groups)), w,
                                             &b, Activation::gelu_tanh)
                             .value());
    std::vector<double> want;
    for (const Segment& s : make_segments(groups, kExperts)) {
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

TEST(GroupedLinearMisuse, ShapesDtypesAndOffsetsAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Param& w = bench.param("w", DType::f32, {2, 4, 3});
  Param& b = bench.param("b", DType::f32, {2, 5});
  Param& apart = bench.param("b", DType::f32, {2, 4});
  apart.source_stride = 8;
  const Var x = tape.constant(bench.tensor("x", DType::f32, {6, 3}));
  const Tensor good = bench.ints({0, 4, 6}), gap = bench.ints({1, 4, 6}), back = bench.ints({0, 7, 6}),
               few = bench.ints({0, 4, 4}), no_expert = bench.ints({0, 6});
  EXPECT_NO_THROW(ops::grouped_linear(tape, x, good, w));
  EXPECT_THROW(ops::grouped_linear(tape, x, gap, w), Error);
  EXPECT_THROW(ops::grouped_linear(tape, x, back, w), Error);
  EXPECT_THROW(ops::grouped_linear(tape, x, bench.ints({0, 2, 4, 6}), w), Error);
  EXPECT_THROW(ops::grouped_linear(tape, x, bench.zeros(DType::f32, {3}), w), Error);
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
