#include <algorithm>
#include <cmath>

#include "tests/support/op_test.h"
#include <ziggurat/core/philox.h>
#include <ziggurat/ops/attention.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using ops::AttentionShape;
using test::OpBench;

constexpr float kScale = 0.3f;
constexpr int64_t kLayer = 5;

// y by the definition, one probability at a time.
std::vector<double> naive(const std::vector<double>& qkv, const AttentionShape& s, double dropout,
                          const MicroBatch& now) {
  const Philox rng(now.seed, Purpose::attention_dropout, kLayer, now.moment());
  std::vector<double> y(static_cast<size_t>(s.rows() * s.heads * s.head_dim));
  const auto at = [&](int64_t b, int64_t t, int64_t column) {
    return qkv[static_cast<size_t>((b * s.length + t) * s.width() + column)];
  };
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t kv = h / (s.heads / s.kv_heads);
      const int64_t k_column = (s.heads + kv) * s.head_dim;
      const int64_t v_column = (s.heads + s.kv_heads + kv) * s.head_dim;
      for (int64_t i = 0; i < s.length; ++i) {
        std::vector<double> p;
        for (int64_t j = 0; j <= i; ++j) {
          double score = 0;
          for (int64_t e = 0; e < s.head_dim; ++e)
            score += at(b, i, h * s.head_dim + e) * at(b, j, k_column + e);
          p.push_back(score * double(kScale));
        }
        const double max = *std::max_element(p.begin(), p.end());
        double sum = 0;
        for (double& x : p) sum += x = std::exp(x - max);
        for (int64_t j = 0; j <= i; ++j) {
          const auto element = static_cast<uint64_t>(((b * s.heads + h) * s.length + i) * s.length + j);
          if (dropout > 0) {
            p[static_cast<size_t>(j)] *=
                rng.uniform(element) < static_cast<float>(dropout) ? 0 : 1 / (1 - dropout);
          }
          for (int64_t e = 0; e < s.head_dim; ++e) {
            y[static_cast<size_t>(((b * s.length + i) * s.heads + h) * s.head_dim + e)] +=
                p[static_cast<size_t>(j)] / sum * at(b, j, v_column + e);
          }
        }
      }
    }
  }
  return y;
}

struct AttentionCase {
  AttentionShape shape;
  double dropout = 0;
};
void PrintTo(const AttentionCase& c, std::ostream* os) {
  const AttentionShape& s = c.shape;
  *os << "B" << s.batch << " T" << s.length << " H" << s.heads << "/" << s.kv_heads << " d" << s.head_dim
      << " dropout " << c.dropout;
}

class Attention : public testing::TestWithParam<AttentionCase> {};

TEST_P(Attention, ForwardEqualsNaiveReference) {
  const auto [s, dropout] = GetParam();
  for (const Reproducible mode : {Reproducible::layout, Reproducible::strict}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      OpBench bench(mode);
      const Tensor qkv = bench.tensor("qkv", dtype, {s.rows(), s.width()});
      const Var y = ops::attention(bench.tape(), bench.tape().constant(qkv), s, kScale, dropout, kLayer);
      // A score is a sum of head_dim products, an output a convex sum of up to T values of magnitude 4.
      test::expect_close(y.value(), naive(test::to_doubles(qkv), s, dropout, bench.micro_batch),
                         s.head_dim + s.length, 4 / (1 - dropout), to_string(dtype));
    }
  }
}

TEST_P(Attention, GradientsEqualFiniteDifferences) {
  const auto [s, dropout] = GetParam();
  if (s.rows() * s.width() > 200) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  test::expect_gradients(bench, {bench.tensor("qkv", DType::f64, {s.rows(), s.width()})}, {},
                         [&, shape = s, p = dropout](Tape& tape, const std::vector<Var>& v) {
                           return ops::attention(tape, v[0], shape, kScale, p, kLayer);
                         });
}

// d(sum(r y))/d qkv, where a first consumer of qkv has already put the gradient `first` there.
Tensor gradient(OpBench& bench, DType dtype, const AttentionCase& c, const Tensor* first) {
  Tape& tape = bench.tape();
  const Var qkv = tape.variable(bench.tensor("qkv", dtype, {c.shape.rows(), c.shape.width()}));
  const Var y = ops::attention(tape, qkv, c.shape, kScale, c.dropout, kLayer);
  if (first != nullptr) tape.pass_grad(qkv, *first);
  tape.backward(y, bench.tensor("r", dtype, y.shape()));
  return tape.grad(qkv);
}

// The f64 gradient is checked by differences at small sizes; here it is the reference at large ones.
TEST_P(Attention, GradientsInLowPrecisionEqualF64) {
  const AttentionCase c = GetParam();
  const AttentionShape& s = c.shape;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    OpBench low, high;
    const Tensor first = low.tensor("first", dtype, {s.rows(), s.width()});
    const Tensor rounded = low.tensor("qkv", dtype, {s.rows(), s.width()});
    const Tensor rounded_r = low.tensor("r", dtype, {s.rows(), s.heads * s.head_dim});

    Tape& tape = high.tape();
    const auto same_in_f64 = [&](const Tensor& t) {
      const Tensor wide = high.zeros(DType::f64, t.shape());
      const auto values = test::to_doubles(t);
      std::copy(values.begin(), values.end(), wide.data<double>());
      return wide;
    };
    const Var x = tape.variable(same_in_f64(rounded));
    const Var y = ops::attention(tape, x, s, kScale, c.dropout, kLayer);
    tape.pass_grad(x, same_in_f64(first));
    tape.backward(y, same_in_f64(rounded_r));

    // dk and dv sum over T rows and over the heads of a group; bf16 rounds y in delta and the result when
    // added to `first`.
    const double magnitude = 16 * std::sqrt(static_cast<double>(s.length * s.group())) / (1 - c.dropout);
    test::expect_close(gradient(low, dtype, c, &first), test::to_doubles(tape.grad(x)), s.head_dim + s.length,
                       magnitude, to_string(dtype));
  }
}

TEST_P(Attention, BitsDoNotDependOnTheNumberOfThreads) {
  const AttentionCase c = GetParam();
  const int threads = thread_count();
  std::vector<std::vector<double>> results;
  for (const int n : {1, 3}) {
    set_thread_count(n);
    OpBench bench;
    results.push_back(test::to_doubles(gradient(bench, DType::f32, c, nullptr)));
  }
  set_thread_count(threads);
  EXPECT_EQ(results[0], results[1]);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Attention,
                         testing::Values(AttentionCase{{0, 3, 1, 1, 2}}, AttentionCase{{2, 0, 1, 1, 2}},
                                         AttentionCase{{1, 1, 1, 1, 1}}, AttentionCase{{2, 5, 3, 3, 2}},
                                         AttentionCase{{1, 7, 4, 2, 3}}, AttentionCase{{2, 5, 4, 1, 2}, 0.4},
                                         AttentionCase{{1, 66, 1, 1, 1}, 0.5},
                                         AttentionCase{{1, 64, 2, 1, 16}},
                                         AttentionCase{{2, 151, 3, 1, 8}, 0.1}));

TEST(Attention, DropsNothingOutsideTraining) {
  const AttentionShape s = {1, 9, 2, 2, 4};
  OpBench bench;
  MicroBatch evaluation = bench.micro_batch;
  evaluation.training = false;
  bench.tape().begin(evaluation);
  const Tensor qkv = bench.tensor("qkv", DType::f32, {s.rows(), s.width()});
  const Var y = ops::attention(bench.tape(), bench.tape().constant(qkv), s, kScale, 0.5, kLayer);
  test::expect_close(y.value(), naive(test::to_doubles(qkv), s, 0.0, evaluation), 32, 4);
}

TEST(Attention, LargeScoresStayFinite) {
  const AttentionShape s = {1, 20, 1, 1, 4};
  OpBench bench;
  const Tensor qkv = bench.tensor("qkv", DType::f32, {s.rows(), s.width()}, 30.0);  // scores up to about 1000
  const Var y = ops::attention(bench.tape(), bench.tape().constant(qkv), s, kScale, 0, kLayer);
  // A score of 1000 is known to 1000 units of rounding, and so is the exponential's exponent.
  test::expect_close(y.value(), naive(test::to_doubles(qkv), s, 0.0, bench.micro_batch), 1000, 100);
}

TEST(AttentionMisuse, ShapeAndDropoutAreNamed) {
  OpBench bench;
  const auto run = [&](const AttentionShape& s, double dropout) {
    const Var qkv = bench.tape().constant(bench.tensor("qkv", DType::f32, {6, 12}));
    return ops::attention(bench.tape(), qkv, s, kScale, dropout, kLayer);
  };
  EXPECT_NO_THROW(run({2, 3, 2, 2, 2}, 0.0));
  EXPECT_THROW(run({2, 3, 2, 2, 3}, 0.0), Error);  // another width
  EXPECT_THROW(run({2, 4, 2, 2, 2}, 0.0), Error);  // other rows
  EXPECT_THROW(run({2, 3, 3, 2, 2}, 0.0), Error);  // 3 heads on 2 key heads
  EXPECT_THROW(run({2, 3, 2, 0, 2}, 0.0), Error);  // no key head
  EXPECT_THROW(run({2, 3, 2, 2, 2}, 1.0), Error);  // nothing would be kept
  EXPECT_THROW(run({2, 3, 2, 2, 2}, -0.1), Error);
}

}  // namespace
}  // namespace ziggurat
