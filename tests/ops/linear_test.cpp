#include <cmath>
#include <optional>

#include "tests/support/op_test.h"
#include <ziggurat/kernels/few_rows.h>
#include <ziggurat/kernels/packed_linear.h>
#include <ziggurat/ops/linear.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using ops::Activation;
using test::OpBench;

double activate(Activation activation, double z) {
  if (activation == Activation::gelu_tanh) {
    return 0.5 * z * (1 + std::tanh(std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
  }
  return activation == Activation::gelu_erf ? 0.5 * z * (1 + std::erf(z / std::sqrt(2.0))) : z;
}

struct LinearCase {
  int64_t rows, in, out;
  bool bias;
  Activation activation;
};
void PrintTo(const LinearCase& c, std::ostream* os) {
  *os << c.rows << "x" << c.in << "->" << c.out << (c.bias ? " bias" : "") << " activation "
      << static_cast<int>(c.activation);
}

std::vector<double> naive(const LinearCase& c, const Tensor& x, const Param& w, const Param& b) {
  const auto xs = test::to_doubles(x), ws = test::to_doubles(w.value), bs = test::to_doubles(b.value);
  std::vector<double> y;
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < c.out; ++j) {
      double z = c.bias ? bs[static_cast<size_t>(j)] : 0;
      for (int64_t k = 0; k < c.in; ++k)
        z += xs[static_cast<size_t>(i * c.in + k)] * ws[static_cast<size_t>(j * c.in + k)];
      y.push_back(activate(c.activation, z));
    }
  }
  return y;
}

class Linear : public testing::TestWithParam<LinearCase> {};

TEST_P(Linear, ForwardEqualsNaiveReference) {
  const LinearCase c = GetParam();
  for (const Reproducible mode : {Reproducible::layout, Reproducible::strict}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      OpBench bench(mode);
      const Tensor x = bench.tensor("x", dtype, {c.rows, c.in});
      const Param& w = bench.param("w", dtype, {c.out, c.in});
      const Param& b = bench.param("b", accum_dtype(dtype), {c.out});
      const Var y =
          ops::linear(bench.tape(), bench.tape().constant(x), w, c.bias ? &b : nullptr, c.activation);

      // bf16 rounds z before the activation: a second rounding of a value of magnitude sqrt(in).
      const double magnitude = 2 * std::sqrt(static_cast<double>(std::max<int64_t>(c.in, 1)));
      test::expect_close(y.value(), naive(c, x, w, b), c.in, magnitude, to_string(dtype));
    }
  }
}

TEST_P(Linear, GradientsEqualFiniteDifferences) {
  const LinearCase c = GetParam();
  if (c.rows * c.in * c.out > 2000) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  Param& w = bench.param("w", DType::f64, {c.out, c.in});
  Param& b = bench.param("b", DType::f64, {c.out});
  std::vector<Param*> params = {&w};
  if (c.bias) params.push_back(&b);
  test::expect_gradients(bench, {bench.tensor("x", DType::f64, {c.rows, c.in})}, params,
                         [&](Tape& tape, const std::vector<Var>& v) {
                           return ops::linear(tape, v[0], w, c.bias ? &b : nullptr, c.activation);
                         });
}

INSTANTIATE_TEST_SUITE_P(Shapes, Linear,
                         testing::Values(LinearCase{0, 3, 2, true, Activation::none},
                                         LinearCase{1, 1, 1, true, Activation::gelu_tanh},
                                         LinearCase{3, 5, 7, false, Activation::none},
                                         LinearCase{3, 5, 7, true, Activation::gelu_tanh},
                                         LinearCase{5, 4, 3, true, Activation::gelu_erf},
                                         LinearCase{259, 65, 530, true, Activation::gelu_tanh}));

// One tile of a product, long in the summed dim: oneDNN would share that among 16 threads.
TEST(Linear, StrictBitsDoNotDependOnTheNumberOfThreads) {
  const int threads = thread_count();
  std::vector<std::vector<double>> results;
  for (const int n : {1, 16}) {
    assume_thread_count(n);  // more than a machine of few cores would be allowed
    OpBench bench(Reproducible::strict);
    const Tensor x = bench.tensor("x", DType::f32, {32, 6000});
    const Param& w = bench.param("w", DType::f32, {40, 6000});
    results.push_back(test::to_doubles(ops::linear(bench.tape(), bench.tape().constant(x), w).value()));
  }
  set_thread_count(threads);
  EXPECT_EQ(results[0], results[1]);
}

// Outside training a few rows take a kernel of their own. Widths around the pieces that it cuts rows into.
class FewRows : public testing::TestWithParam<LinearCase> {};

TEST_P(FewRows, EqualsNaiveReferenceWhateverTheirNeighboursAndThreads) {
  const LinearCase c = GetParam();
  const int threads = thread_count();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    MicroBatch evaluation = bench.micro_batch;
    evaluation.training = false;
    const Tensor x = bench.tensor("x", dtype, {c.rows, c.in});
    const Param& w = bench.param("w", dtype, {c.out, c.in});
    const Param& b = bench.param("b", accum_dtype(dtype), {c.out});
    const Param* bias = c.bias ? &b : nullptr;
    const auto run = [&](const Tensor& rows) {
      bench.tape().begin(evaluation);
      return test::to_doubles(
          ops::linear(bench.tape(), bench.tape().constant(rows), w, bias, c.activation).value());
    };
    bench.tape().begin(evaluation);
    const Var y = ops::linear(bench.tape(), bench.tape().constant(x), w, bias, c.activation);
    test::expect_close(y.value(), naive(c, x, w, b), c.in, 2 * std::sqrt(double(c.in)), to_string(dtype));

    const std::vector<double> all = run(x);
    for (int64_t i = 0; i < c.rows; ++i) {
      set_thread_count(3);
      const std::vector<double> alone = run(x.rows(i, i + 1));
      set_thread_count(threads);
      EXPECT_EQ(alone, std::vector<double>(all.begin() + i * c.out, all.begin() + (i + 1) * c.out)) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, FewRows,
                         testing::Values(LinearCase{1, 1, 1, true, Activation::gelu_tanh},
                                         LinearCase{1, 64, 33, false, Activation::none},
                                         LinearCase{2, 100, 16, true, Activation::gelu_erf},
                                         LinearCase{3, 79, 17, true, Activation::none},
                                         LinearCase{8, 321, 50, true, Activation::gelu_tanh}));

// Weights that nobody trains may have copies, in matrices of so many rows; then many rows take a kernel of
// their own. Row counts around a product's, and sums long enough for the library to cut them.
class PackedLinear : public testing::TestWithParam<LinearCase> {};

TEST_P(PackedLinear, EqualsNaiveReferenceWhateverTheirNeighboursAndThreads) {
  const LinearCase c = GetParam();
  const int threads = thread_count();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    OpBench bench(Reproducible::strict);
    MicroBatch evaluation = bench.micro_batch;
    evaluation.training = false;
    const Tensor x = bench.tensor("x", dtype, {c.rows, c.in});
    const Param& b = bench.param("b", accum_dtype(dtype), {c.out});
    const Param* bias = c.bias ? &b : nullptr;
    Param w;
    w.value = bench.tensor("w", dtype, {c.out, c.in});
    if (!kernels::PackedWeights::supported<float>(c.out, kernels::kPackedColumns, c.in,
                                                  kernels::Copies::forward)) {
      GTEST_SKIP() << "this CPU or library has no packed products";
    }
    const uint64_t version = 1;
    w.version = &version;
    bench.tape().stream().set_weight_rows(Stream::kAllRows);
    const auto run = [&](const Tensor& rows) {
      bench.tape().begin(evaluation);
      return ops::linear(bench.tape(), bench.tape().constant(rows), w, bias, c.activation).value();
    };
    const Tensor y = run(x);
    EXPECT_GE(bench.tape().stream().cache_bytes(), w.value.bytes());
    test::expect_close(y, naive(c, x, w, b), c.in, 2 * std::sqrt(double(c.in)), to_string(dtype));

    const std::vector<double> all = test::to_doubles(y);
    const auto expect_rows = [&](int64_t begin, int64_t end) {
      EXPECT_EQ(test::to_doubles(run(x.rows(begin, end))),
                std::vector<double>(all.begin() + begin * c.out, all.begin() + end * c.out))
          << to_string(dtype) << " rows [" << begin << ", " << end << ")";
    };
    for (const int n : {1, 3}) {
      set_thread_count(n);
      expect_rows(0, c.rows);
      for (int64_t row = 0; row < c.rows; row += 13) expect_rows(row, row + 1);
      expect_rows(c.rows / 3, c.rows);
    }
    set_thread_count(threads);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PackedLinear,
                         testing::Values(LinearCase{0, 64, 128, true, Activation::none},
                                         LinearCase{1, 64, 33, false, Activation::none},
                                         LinearCase{64, 100, 300, true, Activation::gelu_erf},
                                         LinearCase{150, 768, 257, true, Activation::gelu_tanh},
                                         LinearCase{70, 3072, 128, true, Activation::none},
                                         LinearCase{20, 50, 40, false, Activation::gelu_tanh}));

TEST(Logits, AreNotRoundedToBf16) {
  for (const int64_t rows : {int64_t{2}, kernels::kFewRows + 3}) {  // either kernel
    OpBench bench;
    MicroBatch evaluation = bench.micro_batch;
    evaluation.training = false;
    bench.tape().begin(evaluation);
    const LinearCase c{rows, 70, 40, false, Activation::none};
    const Tensor x = bench.tensor("x", DType::bf16, {rows, c.in});
    const Param& w = bench.param("w", DType::bf16, {c.out, c.in});
    const Var y = ops::logits(bench.tape(), bench.tape().constant(x), w);
    ASSERT_EQ(y.dtype(), DType::f32);
    test::expect_close(y.value(), naive(c, x, w, w), c.in, std::sqrt(double(c.in)));
  }
}

TEST(LogitsMisuse, ShapesDtypesAndTrainingAreNamed) {
  OpBench bench;
  const Param& w = bench.param("w", DType::f32, {4, 3});
  const Var x = bench.tape().constant(bench.tensor("x", DType::f32, {2, 3}));
  EXPECT_THROW(ops::logits(bench.tape(), x, w), Error);  // the bench is in training
  MicroBatch evaluation = bench.micro_batch;
  evaluation.training = false;
  bench.tape().begin(evaluation);
  const auto logits_of = [&](DType dtype, Shape shape) {
    return ops::logits(bench.tape(), bench.tape().constant(bench.tensor("x", dtype, shape)), w);
  };
  EXPECT_NO_THROW(logits_of(DType::f32, {2, 3}));
  EXPECT_THROW(logits_of(DType::f32, {2, 2}), Error);
  EXPECT_THROW(logits_of(DType::f64, {2, 3}), Error);
}

TEST(LinearMisuse, ShapesAndDtypesAreNamed) {
  OpBench bench;
  const Param& w = bench.param("w", DType::f32, {4, 3});
  const Param& b = bench.param("b", DType::f32, {5});
  const Var wrong_width = bench.tape().constant(bench.tensor("x", DType::f32, {2, 2}));
  const Var wrong_dtype = bench.tape().constant(bench.tensor("x", DType::f64, {2, 3}));
  const Var x = bench.tape().constant(bench.tensor("x", DType::f32, {2, 3}));
  EXPECT_THROW(ops::linear(bench.tape(), wrong_width, w), Error);
  EXPECT_THROW(ops::linear(bench.tape(), wrong_dtype, w), Error);
  EXPECT_THROW(ops::linear(bench.tape(), x, w, &b), Error);
}

}  // namespace
}  // namespace ziggurat
