#include <cmath>
#include <mutex>

#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/ops/qk_norm.h>

namespace ziggurat::kernels {

// Where the compiler looks for it.
static void PrintTo(const QkNormShape& s, std::ostream* os) {
  *os << "B" << s.qkv.batch << " T" << s.qkv.length << " H" << s.qkv.heads << "/" << s.qkv.kv_heads << " d"
      << s.qkv.head_dim << (s.per_head ? " per head" : " whole width");
}

}  // namespace ziggurat::kernels

namespace ziggurat {
namespace {

using ops::AttentionShape;
using ops::QkNormShape;
using test::OpBench;
constexpr double kEps = 1e-5;

Shape qkv_of(const QkNormShape& s) { return {s.qkv.rows(), s.qkv.width()}; }

// The columns [begin, end) of a row as they say: divided by their root mean square, times a weight.
void normalise(std::vector<double>& x, size_t begin, size_t end, const std::vector<double>& weight) {
  double square = 0;
  for (size_t j = begin; j < end; ++j) square += x[j] * x[j] / static_cast<double>(end - begin);
  for (size_t j = begin; j < end; ++j) x[j] = x[j] / std::sqrt(square + kEps) * weight.at(j - begin);
}

std::vector<double> naive(std::vector<double> x, const QkNormShape& s, const std::vector<double>& q_weight,
                          const std::vector<double>& k_weight) {
  const auto d = static_cast<size_t>(s.qkv.head_dim), q = static_cast<size_t>(s.qkv.heads) * d,
             k = static_cast<size_t>(s.qkv.kv_heads) * d;
  for (size_t row = 0; row < x.size(); row += static_cast<size_t>(s.qkv.width())) {
    if (!s.per_head) {
      normalise(x, row, row + q, q_weight);
      normalise(x, row + q, row + q + k, k_weight);
      continue;
    }
    for (size_t column = 0; column < q + k; column += d) {
      normalise(x, row + column, row + column + d, column < q ? q_weight : k_weight);
    }
  }
  return x;
}

class QkNorm : public testing::TestWithParam<QkNormShape> {};

TEST_P(QkNorm, ForwardEqualsNaiveReference) {
  const QkNormShape s = GetParam();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    const Tensor x = bench.tensor("x", dtype, qkv_of(s), 2.0, 1.0);
    const Param& q = bench.param("q", accum_dtype(dtype), {s.q_cols()});
    const Param& k = bench.param("k", accum_dtype(dtype), {s.k_cols()});
    const Var y = ops::qk_norm(bench.tape(), bench.tape().constant(x), s, q, k, kEps);
    const auto want = naive(test::to_doubles(x), s, test::to_doubles(q.value), test::to_doubles(k.value));
    test::expect_close(y.value(), want, s.q_cols(), 4.0, to_string(dtype));
  }
}

TEST_P(QkNorm, GradientsEqualFiniteDifferences) {
  const QkNormShape s = GetParam();
  if (qkv_of(s).numel() > 200) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  Param& q = bench.param("q", DType::f64, {s.q_cols()});
  Param& k = bench.param("k", DType::f64, {s.k_cols()});
  test::expect_gradients(
      bench, {bench.tensor("x", DType::f64, qkv_of(s))}, {&q, &k},
      [&](Tape& tape, const std::vector<Var>& v) { return ops::qk_norm(tape, v[0], s, q, k, 1e-2); });
}

// The backward in lower dtypes: each gradient is that of f64 on the same rounded numbers.
TEST_P(QkNorm, GradientsOfLowerDtypesEqualThoseOfF64) {
  const QkNormShape s = GetParam();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    OpBench bench;
    Tape& tape = bench.tape();
    const auto gradients = [&](DType in) {
      const auto rounded = [&](const char* name) {  // to the lower dtype, whatever the one asked for
        const Tensor low = bench.tensor(name, dtype, qkv_of(s), 1.0, 0.5), same = bench.zeros(in, qkv_of(s));
        const std::vector<double> values = test::to_doubles(low);
        visit_float_dtype(in, [&]<class T>() {
          for (size_t i = 0; i < values.size(); ++i) same.data<T>()[i] = T(values[i]);
        });
        return same;
      };
      Param &q = bench.param("q", accum_dtype(in), {s.q_cols()}),
            &k = bench.param("k", accum_dtype(in), {s.k_cols()});
      const Var x = tape.variable(rounded("x"));
      const Var y = ops::qk_norm(tape, x, s, q, k, kEps);
      tape.pass_grad(x, rounded("first"));  // to be added to
      tape.backward(y, rounded("dy"));
      return std::vector<std::vector<double>>{test::to_doubles(tape.grad(x)), test::to_doubles(q.grad),
                                              test::to_doubles(k.grad)};
    };
    const auto got = gradients(dtype), want = gradients(DType::f64);
    for (size_t i = 0; i < got.size(); ++i) {
      const DType sums = i == 0 ? dtype : DType::f32;
      const double tolerance = test::random_walk(sums, s.q_cols() + s.qkv.rows() * s.q_groups());
      test::expect_within(got[i], want[i], tolerance * std::max(1.0, test::largest(want[i])),
                          fmt::format("{} gradient {}", to_string(dtype), i));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, QkNorm,
    testing::Values(QkNormShape{{0, 3, 1, 1, 2}, true}, QkNormShape{{2, 0, 2, 1, 2}, false},
                    QkNormShape{{1, 1, 1, 1, 2}, true}, QkNormShape{{1, 2, 1, 1, 1}, false},
                    QkNormShape{{2, 3, 4, 2, 3}, true}, QkNormShape{{2, 3, 4, 2, 3}, false},
                    QkNormShape{{1, 3, 3, 3, 6}, true}, QkNormShape{{1, 3, 3, 3, 6}, false},
                    QkNormShape{{3, 23, 6, 2, 70}, true}, QkNormShape{{3, 23, 6, 2, 70}, false}));

// Each with a share of the heads: columns of the same rows, of weights and of their gradients.
TEST_P(QkNorm, RanksThatShareTheHeadsComputeTheSame) {
  QkNormShape s = GetParam();
  for (const int ranks : {2, 3}) {
    AttentionShape all = s.qkv;
    all.heads *= ranks, all.kv_heads *= ranks;
    const QkNormShape of_all{all, s.per_head};
    OpBench whole;
    const Tensor x = whole.tensor("x", DType::f64, qkv_of(of_all)),
                 dy = whole.tensor("dy", DType::f64, qkv_of(of_all));
    Param &q = whole.param("q", DType::f64, {of_all.q_cols()}),
          &k = whole.param("k", DType::f64, {of_all.k_cols()});
    const Var in = whole.tape().variable(x);
    const Var want = ops::qk_norm(whole.tape(), in, of_all, q, k, kEps);
    whole.tape().backward(want, dy);
    const auto want_y = test::to_doubles(want.value()), want_dx = test::to_doubles(whole.tape().grad(in)),
               want_dq = test::to_doubles(q.grad), want_dk = test::to_doubles(k.grad);
    std::mutex mutex;
    std::vector<double> dq(want_dq.size()), dk(want_dk.size());
    run_on_threads(ranks, [&](Communicator& world) {
      const auto d = static_cast<size_t>(all.head_dim), rank = static_cast<size_t>(world.rank()),
                 heads = static_cast<size_t>(s.qkv.heads), kv = static_cast<size_t>(s.qkv.kv_heads),
                 p = static_cast<size_t>(ranks);
      // Where a column of this rank lies among all: its queries, keys and values are shares of each.
      const auto column = [&](size_t j) {
        if (j < heads * d) return rank * heads * d + j;
        if (j < (heads + kv) * d) return p * heads * d + rank * kv * d + j - heads * d;
        return p * (heads + kv) * d + rank * kv * d + j - (heads + kv) * d;
      };
      const auto width = static_cast<size_t>(s.qkv.width()), of_row = static_cast<size_t>(all.width());
      const auto place = [&](size_t i) { return i / width * of_row + column(i % width); };
      OpBench bench;
      const auto own = [&](const Tensor& of) {
        const Tensor mine = bench.zeros(DType::f64, qkv_of(s));
        for (size_t i = 0; i < static_cast<size_t>(mine.numel()); ++i) {
          mine.data<double>()[i] = of.data<double>()[place(i)];
        }
        return mine;
      };
      const auto part = [&](const char* name, const Param& of, int64_t cols) -> Param& {
        Param& mine = bench.param(name, DType::f64, {cols});
        const int64_t first = s.per_head ? 0 : world.rank() * cols;
        copy(of.value.rows(first, first + cols), mine.value);
        return mine;
      };
      Param &q_part = part("q", q, s.q_cols()), &k_part = part("k", k, s.k_cols());
      Tape& tape = bench.tape();
      const Var its = tape.variable(own(x));
      const Var y = ops::qk_norm(tape, its, s, q_part, k_part, kEps, &world);
      tape.backward(y, own(dy));
      const auto got_y = test::to_doubles(y.value()), got_dx = test::to_doubles(tape.grad(its));
      const std::lock_guard lock(mutex);
      for (size_t i = 0; i < got_y.size(); ++i) {
        EXPECT_NEAR(got_y[i], want_y[place(i)], 1e-12 * (1 + std::abs(want_y[place(i)])));
        EXPECT_NEAR(got_dx[i], want_dx[place(i)], 1e-9 * (1 + std::abs(want_dx[place(i)])));
      }
      const auto add = [&](const Param& mine, std::vector<double>& sum) {
        const std::vector<double> its_gradient = test::to_doubles(mine.grad);
        const size_t first = s.per_head ? 0 : rank * its_gradient.size();
        for (size_t j = 0; j < its_gradient.size(); ++j) sum[first + j] += its_gradient[j];
      };
      add(q_part, dq), add(k_part, dk);
    });
    test::expect_within(dq, want_dq, 1e-10 * (1 + test::largest(want_dq)), "q weight");
    test::expect_within(dk, want_dk, 1e-10 * (1 + test::largest(want_dk)), "k weight");
  }
}

constexpr QkNormShape kPerHead{{2, 51, 4, 2, 40}, true}, kWidth{{2, 51, 4, 2, 40}, false};

TEST(QkNormBackward, AddsToGradientsThatAreAlreadyThere) {
  OpBench bench;
  const QkNormShape s{{1, 3, 2, 1, 4}, true};
  Param &q = bench.param("q", DType::f64, {4}), &k = bench.param("k", DType::f64, {4});
  test::expect_gradients(bench, {bench.tensor("x", DType::f64, qkv_of(s))}, {&q, &k},
                         [&](Tape& tape, const std::vector<Var>& v) {
                           const Var h = ops::qk_norm(tape, v[0], s, q, k, 1e-2);
                           return ops::qk_norm(tape, h, s, k, q, 1.0);
                         });
}

TEST(QkNormBackward, FrozenParametersAndConstantsGetNothing) {
  OpBench bench;
  const QkNormShape s{{1, 2, 2, 1, 2}, true};
  Param q = bench.param("q", DType::f32, {2});
  Param& k = bench.param("k", DType::f32, {2});
  q.grad = Tensor();
  Tape& tape = bench.tape();
  const Tensor dy = bench.tensor("dy", DType::f32, qkv_of(s));
  const Var x = tape.variable(bench.tensor("x", DType::f32, qkv_of(s)));
  tape.backward(ops::qk_norm(tape, x, s, q, k, kEps), dy);
  EXPECT_TRUE(tape.grad(x));
  const std::vector<double> once = test::to_doubles(k.grad);
  EXPECT_NE(test::largest(once), 0);
  const Var fixed = tape.constant(x.value());
  tape.backward(ops::qk_norm(tape, fixed, s, q, k, kEps), dy);
  EXPECT_FALSE(tape.grad(fixed));
  const std::vector<double> twice = test::to_doubles(k.grad);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_EQ(twice[i], 2 * once[i]);
}

TEST(QkNormBackward, BitsDoNotDependOnTheNumberOfThreads) {
  for (const QkNormShape& s : {kPerHead, kWidth}) {
    test::expect_same_on_any_thread_count([&] {
      OpBench bench;
      Param &q = bench.param("q", DType::f32, {s.q_cols()}), &k = bench.param("k", DType::f32, {s.k_cols()});
      Tape& tape = bench.tape();
      const Var x = tape.variable(bench.tensor("x", DType::f32, qkv_of(s)));
      const Var y = ops::qk_norm(tape, x, s, q, k, kEps);
      tape.backward(y, bench.tensor("dy", DType::f32, qkv_of(s)));
      return test::concatenate({y.value(), tape.grad(x), q.grad, k.grad});
    });
  }
}

// A token that is decoded alone has the bits that it has in its whole text.
TEST(QkNormForward, BitsOfARowDoNotDependOnItsNeighbours) {
  for (const QkNormShape& s : {kPerHead, kWidth}) {
    OpBench bench;
    Tape& tape = bench.tape();
    const Param &q = bench.param("q", DType::f32, {s.q_cols()}),
                &k = bench.param("k", DType::f32, {s.k_cols()});
    const Tensor x = bench.tensor("x", DType::f32, qkv_of(s));
    const Tensor all = ops::qk_norm(tape, tape.constant(x), s, q, k, kEps).value();
    QkNormShape alone = s;
    alone.qkv.batch = alone.qkv.length = 1;
    for (const int64_t row : {int64_t{0}, int64_t{37}, s.qkv.rows() - 1}) {
      const Var one = ops::qk_norm(tape, tape.constant(x.rows(row, row + 1)), alone, q, k, kEps);
      EXPECT_EQ(test::to_doubles(one.value()), test::to_doubles(all.rows(row, row + 1)));
    }
  }
}

TEST(QkNormMisuse, ShapesDtypesAndEpsAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const QkNormShape head{{1, 2, 2, 1, 4}, true}, width{{1, 2, 2, 1, 4}, false};
  const Param &four = bench.param("four", DType::f32, {4}), &eight = bench.param("eight", DType::f32, {8}),
              &double_four = bench.param("double", DType::f64, {4});
  const Var x = tape.constant(bench.tensor("x", DType::f32, {2, 16}));
  const Var narrow = tape.constant(bench.tensor("x", DType::f32, {2, 15}));
  EXPECT_NO_THROW(ops::qk_norm(tape, x, head, four, four, kEps));
  EXPECT_NO_THROW(ops::qk_norm(tape, x, width, eight, four, kEps));
  EXPECT_THROW(ops::qk_norm(tape, narrow, head, four, four, kEps), Error);
  EXPECT_THROW(ops::qk_norm(tape, x, head, eight, four, kEps), Error);
  EXPECT_THROW(ops::qk_norm(tape, x, width, four, four, kEps), Error);
  EXPECT_THROW(ops::qk_norm(tape, x, width, eight, eight, kEps), Error);
  EXPECT_THROW(ops::qk_norm(tape, x, head, double_four, four, kEps), Error);
  EXPECT_THROW(ops::qk_norm(tape, x, head, four, double_four, kEps), Error);
  EXPECT_THROW(ops::qk_norm(tape, x, head, four, four, 0.0), Error);
}

}  // namespace
}  // namespace ziggurat
