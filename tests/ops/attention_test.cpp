#include <algorithm>
#include <array>
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

// Which keys a row sees: all up to its own; those of its document, documents being 1 to 40 long; all from any
// one on; in a prefix of its sequence the whole prefix, else all up to its own; or a range of any ends.
enum class Sees { all, document, any, prefix, range };

struct AttentionCase {
  AttentionShape shape;
  double dropout = 0;
  Sees sees = Sees::all;
  int64_t window = 0;
};
void PrintTo(const AttentionCase& c, std::ostream* os) {
  const AttentionShape& s = c.shape;
  *os << "B" << s.batch << " T" << s.length << " H" << s.heads << "/" << s.kv_heads << " d" << s.head_dim
      << " dropout " << c.dropout
      << std::array{"", " documents", " any", " prefix", " range"}[static_cast<size_t>(c.sees)] << " window "
      << c.window;
}

struct Keys {
  std::vector<int32_t> first = {}, last = {};  // empty: none are given
  int64_t window = 0;
  ops::VisibleKeys visible() const {
    return {first.empty() ? nullptr : first.data(), last.empty() ? nullptr : last.data(), window};
  }
};

Keys keys_of(const AttentionCase& c) {
  Keys keys;
  keys.window = c.window;
  if (c.sees == Sees::all) return keys;
  const Philox rng(2, Purpose::test);
  int64_t begin = 0, end = 0, prefix = 0;
  for (int64_t row = 0; row < c.shape.rows(); ++row) {
    const int64_t i = row % c.shape.length;
    const uint32_t random = rng.bits(static_cast<uint64_t>(row));
    if (i == 0 || i == end) begin = i, end = i + 1 + random % std::min<int64_t>(40, c.shape.length);
    if (i == 0) prefix = random % (c.shape.length + 1);
    if (c.sees != Sees::prefix) {
      keys.first.push_back(static_cast<int32_t>(c.sees == Sees::document ? begin : random % (i + 1)));
    }
    if (c.sees == Sees::prefix) keys.last.push_back(static_cast<int32_t>(std::max(i, prefix - 1)));
    if (c.sees == Sees::range)
      keys.last.push_back(static_cast<int32_t>(i + random / 7 % (c.shape.length - i)));
  }
  return keys;
}

// y by the definition, one probability at a time.
std::vector<double> naive(const std::vector<double>& qkv, const AttentionCase& c, const MicroBatch& now) {
  const AttentionShape& s = c.shape;
  const double dropout = now.training ? c.dropout : 0;
  const Keys keys = keys_of(c);
  const std::vector<int32_t>& first = keys.first;
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
        const auto row = static_cast<size_t>(b * s.length + i);
        const int64_t from = first.empty() ? 0 : first[row];
        const int64_t begin = c.window > 0 ? std::max(from, i - c.window + 1) : from,
                      last = keys.last.empty() ? i : keys.last[row];
        for (int64_t j = begin; j <= last; ++j) {
          double score = 0;
          for (int64_t e = 0; e < s.head_dim; ++e)
            score += at(b, i, h * s.head_dim + e) * at(b, j, k_column + e);
          p.push_back(score * double(kScale));
        }
        const double max = *std::max_element(p.begin(), p.end());
        double sum = 0;
        for (double& x : p) sum += x = std::exp(x - max);
        for (int64_t j = begin; j <= last; ++j) {
          const auto element = static_cast<uint64_t>(((b * s.heads + h) * s.length + i) * s.length + j);
          if (dropout > 0) {
            p[static_cast<size_t>(j - begin)] *=
                rng.uniform(element) < static_cast<float>(dropout) ? 0 : 1 / (1 - dropout);
          }
          for (int64_t e = 0; e < s.head_dim; ++e) {
            y[static_cast<size_t>(((b * s.length + i) * s.heads + h) * s.head_dim + e)] +=
                p[static_cast<size_t>(j - begin)] / sum * at(b, j, v_column + e);
          }
        }
      }
    }
  }
  return y;
}

class Attention : public testing::TestWithParam<AttentionCase> {};

TEST_P(Attention, ForwardEqualsNaiveReference) {
  const AttentionCase& c = GetParam();
  const AttentionShape& s = c.shape;
  const Keys keys = keys_of(c);
  for (const Reproducible mode : {Reproducible::layout, Reproducible::strict}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      OpBench bench(mode);
      const Tensor qkv = bench.tensor("qkv", dtype, {s.rows(), s.width()});
      const Var y = ops::attention(bench.tape(), bench.tape().constant(qkv), s, kScale, c.dropout, kLayer,
                                   keys.visible());
      // A score is a sum of head_dim products, an output a convex sum of up to T values of magnitude 4.
      test::expect_close(y.value(), naive(test::to_doubles(qkv), c, bench.micro_batch), s.head_dim + s.length,
                         4 / (1 - c.dropout), to_string(dtype));
    }
  }
}

TEST_P(Attention, GradientsEqualFiniteDifferences) {
  const AttentionCase& c = GetParam();
  const AttentionShape& s = c.shape;
  if (s.rows() * s.width() > 200) GTEST_SKIP() << "forward-only size";
  const Keys keys = keys_of(c);
  OpBench bench;
  test::expect_gradients(bench, {bench.tensor("qkv", DType::f64, {s.rows(), s.width()})}, {},
                         [&](Tape& tape, const std::vector<Var>& v) {
                           return ops::attention(tape, v[0], s, kScale, c.dropout, kLayer, keys.visible());
                         });
}

// d(sum(r y))/d qkv, where a first consumer of qkv has already put the gradient `first` there.
Tensor gradient(OpBench& bench, DType dtype, const AttentionCase& c, const Tensor* first, const Keys& keys) {
  Tape& tape = bench.tape();
  const Var qkv = tape.variable(bench.tensor("qkv", dtype, {c.shape.rows(), c.shape.width()}));
  const Var y = ops::attention(tape, qkv, c.shape, kScale, c.dropout, kLayer, keys.visible());
  if (first != nullptr) tape.pass_grad(qkv, *first);
  tape.backward(y, bench.tensor("r", dtype, y.shape()));
  return tape.grad(qkv);
}

// The f64 gradient is checked by differences at small sizes; here it is the reference at large ones.
TEST_P(Attention, GradientsInLowPrecisionEqualF64) {
  const AttentionCase c = GetParam();
  const AttentionShape& s = c.shape;
  const Keys keys = keys_of(c);
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
    const Var y = ops::attention(tape, x, s, kScale, c.dropout, kLayer, keys.visible());
    tape.pass_grad(x, same_in_f64(first));
    tape.backward(y, same_in_f64(rounded_r));

    // dk and dv sum over T rows and over the heads of a group; bf16 rounds y in delta and the result when
    // added to `first`.
    const double magnitude = 16 * std::sqrt(static_cast<double>(s.length * s.group())) / (1 - c.dropout);
    test::expect_close(gradient(low, dtype, c, &first, keys), test::to_doubles(tape.grad(x)),
                       s.head_dim + s.length, magnitude, to_string(dtype));
  }
}

TEST_P(Attention, BitsDoNotDependOnTheNumberOfThreads) {
  const AttentionCase c = GetParam();
  const int threads = thread_count();
  std::vector<std::vector<double>> results;
  for (const int n : {1, 3}) {
    set_thread_count(n);
    OpBench bench;
    results.push_back(test::to_doubles(gradient(bench, DType::f32, c, nullptr, keys_of(c))));
  }
  set_thread_count(threads);
  EXPECT_EQ(results[0], results[1]);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Attention,
    testing::Values(
        AttentionCase{{0, 3, 1, 1, 2}}, AttentionCase{{2, 0, 1, 1, 2}}, AttentionCase{{1, 1, 1, 1, 1}},
        AttentionCase{{2, 5, 3, 3, 2}}, AttentionCase{{1, 7, 4, 2, 3}}, AttentionCase{{2, 5, 4, 1, 2}, 0.4},
        AttentionCase{{1, 66, 1, 1, 1}, 0.5}, AttentionCase{{1, 64, 2, 1, 16}},
        AttentionCase{{2, 151, 3, 1, 8}, 0.1}, AttentionCase{{2, 7, 2, 1, 2}, 0, Sees::document},
        AttentionCase{{1, 9, 2, 2, 2}, 0.4, Sees::any}, AttentionCase{{3, 64, 1, 1, 8}, 0, Sees::document},
        AttentionCase{{2, 200, 3, 1, 8}, 0.1, Sees::document},
        AttentionCase{{2, 151, 4, 2, 16}, 0, Sees::any}, AttentionCase{{2, 7, 2, 1, 2}, 0, Sees::prefix},
        AttentionCase{{1, 9, 2, 2, 2}, 0.4, Sees::range}, AttentionCase{{3, 200, 2, 1, 8}, 0, Sees::prefix},
        AttentionCase{{2, 151, 4, 2, 16}, 0.1, Sees::range}, AttentionCase{{2, 7, 2, 1, 2}, 0, Sees::all, 1},
        AttentionCase{{1, 9, 2, 2, 2}, 0.4, Sees::all, 3}, AttentionCase{{2, 7, 2, 1, 2}, 0, Sees::prefix, 3},
        AttentionCase{{1, 9, 2, 2, 2}, 0.4, Sees::document, 4},
        AttentionCase{{2, 151, 4, 2, 16}, 0.1, Sees::all, 70},
        AttentionCase{{3, 200, 2, 1, 8}, 0, Sees::prefix, 65},
        AttentionCase{{2, 200, 3, 1, 8}, 0.1, Sees::document, 20}));

TEST(Attention, TheUsualKeysChangeNoBit) {
  const AttentionCase c{{2, 151, 4, 2, 8}, 0.1};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    OpBench with, without;
    const std::vector<int32_t> zeros(static_cast<size_t>(c.shape.rows()), 0);
    std::vector<int32_t> own;
    for (int64_t row = 0; row < c.shape.rows(); ++row)
      own.push_back(static_cast<int32_t>(row % c.shape.length));
    EXPECT_EQ(test::to_doubles(gradient(with, dtype, c, nullptr, {zeros, own})),
              test::to_doubles(gradient(without, dtype, c, nullptr, {})));
  }
}

// Blocks of keys that no row of a block of queries sees are left out, forward and backward: what they hold,
// here NaN, would show even times a probability of 0.
TEST(Attention, KeysThatNobodySeesAreNotRead) {
  const AttentionShape s = {1, 200, 2, 1, 4};
  std::vector<int32_t> first(200, 0);
  std::fill(first.begin() + 128, first.end(), 128);
  OpBench bench;
  const Tensor qkv = bench.tensor("qkv", DType::f32, {s.rows(), s.width()});
  std::fill_n(qkv.data<float>(), 128 * s.width(), NAN);
  const Var x = bench.tape().variable(qkv);
  const Var y = ops::attention(bench.tape(), x, s, kScale, 0, kLayer, {first.data(), nullptr});
  bench.tape().backward(y, bench.tensor("r", DType::f32, y.shape()));
  const auto values = test::to_doubles(y.value().rows(128, 200)),
             grads = test::to_doubles(bench.tape().grad(x).rows(128, 200));
  EXPECT_TRUE(std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); }));
  EXPECT_TRUE(std::all_of(grads.begin(), grads.end(), [](double v) { return std::isfinite(v); }));
  EXPECT_TRUE(std::isnan(test::to_doubles(y.value())[0]));
}

TEST(Attention, DropsNothingOutsideTraining) {
  const AttentionShape s = {1, 9, 2, 2, 4};
  OpBench bench;
  MicroBatch evaluation = bench.micro_batch;
  evaluation.training = false;
  bench.tape().begin(evaluation);
  const Tensor qkv = bench.tensor("qkv", DType::f32, {s.rows(), s.width()});
  const Var y = ops::attention(bench.tape(), bench.tape().constant(qkv), s, kScale, 0.5, kLayer);
  test::expect_close(y.value(), naive(test::to_doubles(qkv), {s, 0.5}, evaluation), 32, 4);
}

TEST(Attention, LargeScoresStayFinite) {
  const AttentionShape s = {1, 20, 1, 1, 4};
  OpBench bench;
  const Tensor qkv = bench.tensor("qkv", DType::f32, {s.rows(), s.width()}, 30.0);  // scores up to about 1000
  const Var y = ops::attention(bench.tape(), bench.tape().constant(qkv), s, kScale, 0, kLayer);
  // A score of 1000 is known to 1000 units of rounding, and so is the exponential's exponent.
  test::expect_close(y.value(), naive(test::to_doubles(qkv), {s}, bench.micro_batch), 1000, 100);
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

TEST(AttentionMisuse, AFirstKeyAfterItsRowIsNamed) {
  OpBench bench;
  const Var qkv = bench.tape().constant(bench.tensor("qkv", DType::f32, {6, 12}));
  const auto run = [&](const std::vector<int32_t>& first) {
    return ops::attention(bench.tape(), qkv, {2, 3, 2, 2, 2}, kScale, 0, kLayer, {first.data(), nullptr});
  };
  EXPECT_NO_THROW(run({0, 1, 2, 0, 0, 0}));
  EXPECT_THROW(run({0, 1, 2, 0, 0, -1}), Error);
  try {
    run({0, 1, 2, 0, 2, 2});
    FAIL() << "a row that sees no key was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what())
                  .find("sequence 1, row 1: expected a range that holds 1, within 0 to 2, got 2 to 1"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace ziggurat
