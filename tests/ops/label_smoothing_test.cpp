#include <cmath>
#include <mutex>

#include "tests/support/finite_differences.h"
#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/ops/cross_entropy.h>
#include <ziggurat/ops/label_smoothing.h>

namespace ziggurat {
namespace {

using test::OpBench;

constexpr double kTokenWeight = 0.25, kEpsilon = 0.1;

struct SmoothingCase {
  int64_t rows, width, vocab, padded;
};
void PrintTo(const SmoothingCase& c, std::ostream* os) {
  *os << c.rows << "x" << c.width << "->" << c.vocab << " of " << c.padded;
}

std::vector<int32_t> targets_of(const SmoothingCase& c) {  // every fifth is ignored
  const Philox rng(3, Purpose::test);
  std::vector<int32_t> targets;
  for (int64_t i = 0; i < c.rows; ++i) {
    const auto target = static_cast<int32_t>(rng.bits(static_cast<uint64_t>(i)) % c.vocab);
    targets.push_back(i % 5 == 4 ? -1 : target);
  }
  return targets;
}

Param& weight_of(OpBench& bench, DType dtype, const SmoothingCase& c) {
  return bench.param("w", dtype, {c.padded, c.width});
}

double read(const Tensor& sum) { return test::to_doubles(sum).at(0); }

class LabelSmoothing : public testing::TestWithParam<SmoothingCase> {
 protected:
  Tape& begin(OpBench& bench) {
    bench.micro_batch.token_weight = kTokenWeight;
    bench.tape().begin(bench.micro_batch);
    return bench.tape();
  }
};

// Cross-entropy and this are the cross-entropy with smoothed targets, by its definition.
TEST_P(LabelSmoothing, WithCrossEntropyEqualsSmoothedTargets) {
  const SmoothingCase c = GetParam();
  const std::vector<int32_t> targets = targets_of(c);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    Tape& tape = begin(bench);
    const Tensor x = bench.tensor("x", dtype, {c.rows, c.width});
    Param& w = weight_of(bench, dtype, c);
    const Var in = tape.variable(x);
    const ops::LossResult ce =
        ops::read_loss(ops::cross_entropy(tape, in, w, targets.data(), {c.vocab}), tape.stream());
    const double extra = read(ops::label_smoothing(tape, in, w, targets.data(), {c.vocab}, kEpsilon));

    const auto xs = test::to_doubles(x), ws = test::to_doubles(w.value);
    double want = 0;
    std::vector<double> dx(xs.size()), dw(ws.size());
    for (int64_t i = 0; i < c.rows; ++i) {
      const int32_t target = targets[static_cast<size_t>(i)];
      if (target < 0) continue;
      std::vector<double> z(static_cast<size_t>(c.vocab));
      double sum = 0;
      const auto at = [&](int64_t row, int64_t column) {
        return static_cast<size_t>(row * c.width + column);
      };
      for (int64_t v = 0; v < c.vocab; ++v) {
        for (int64_t j = 0; j < c.width; ++j) z[static_cast<size_t>(v)] += xs[at(i, j)] * ws[at(v, j)];
        sum += std::exp(z[static_cast<size_t>(v)]);
      }
      for (int64_t v = 0; v < c.vocab; ++v) {
        const double share = (v == target ? 1 - kEpsilon : 0) + kEpsilon / static_cast<double>(c.vocab);
        const double logp = z[static_cast<size_t>(v)] - std::log(sum);
        want -= share * logp;
        const double dz = kTokenWeight * (std::exp(logp) - share);
        for (int64_t j = 0; j < c.width; ++j) {
          dx[at(i, j)] += dz * ws[at(v, j)];
          dw[at(v, j)] += dz * xs[at(i, j)];
        }
      }
    }
    const double tolerance = dtype == DType::f64 ? 1e-11 : dtype == DType::f32 ? 1e-5 : 0.03;
    EXPECT_NEAR(ce.sum + extra, want, tolerance * std::max(1.0, want)) << to_string(dtype);
    test::expect_close(tape.grad(in), dx, c.width + c.vocab, 2.0, to_string(dtype));
    // dweight is kept in f32 but made from dlogits that a bf16 CPU rounds to bf16.
    const double rounding = dtype == DType::bf16 ? 0x1p15 : 1;
    test::expect_close(w.grad, dw, c.rows, 2.0 * rounding, to_string(dtype));
  }
}

TEST_P(LabelSmoothing, GradientsEqualFiniteDifferences) {
  const SmoothingCase c = GetParam();
  if (c.rows * c.width * c.vocab > 2000) GTEST_SKIP() << "forward-only size";
  const std::vector<int32_t> targets = targets_of(c);
  OpBench bench;
  const Tensor x_value = bench.tensor("x", DType::f64, {c.rows, c.width});
  Param& w = weight_of(bench, DType::f64, c);
  const auto total = [&](std::vector<double>* dx) {
    Tape& tape = begin(bench);
    const Var x = tape.variable(x_value);
    const double sum = read(ops::label_smoothing(tape, x, w, targets.data(), {c.vocab}, kEpsilon));
    if (dx != nullptr) *dx = test::to_doubles(tape.grad(x));
    return kTokenWeight * sum;
  };
  std::vector<double> dx;
  total(&dx);
  const std::vector<double> dweight = test::to_doubles(w.grad);
  const auto loss = [&] { return total(nullptr); };
  test::expect_central_differences(x_value, dx, loss, 1e-9);
  test::expect_central_differences(w.value, dweight, loss, 1e-9);
}

// Some parts hold nothing but padding.
TEST_P(LabelSmoothing, RanksThatShareTheVocabularyComputeTheSame) {
  const SmoothingCase c = GetParam();
  const std::vector<int32_t> targets = targets_of(c);
  OpBench whole;
  Param& w = weight_of(whole, DType::f64, c);
  const Var in = begin(whole).variable(whole.tensor("x", DType::f64, {c.rows, c.width}));
  const double want = read(ops::label_smoothing(whole.tape(), in, w, targets.data(), {c.vocab}, kEpsilon));
  const auto want_dx = test::to_doubles(whole.tape().grad(in)), want_dw = test::to_doubles(w.grad);
  for (const int ranks : {2, 4}) {
    const int64_t part = (c.padded + ranks - 1) / ranks;
    std::mutex mutex;
    std::vector<double> dx(want_dx.size());
    run_on_threads(ranks, [&](Communicator& world) {
      OpBench bench;
      Tape& tape = begin(bench);
      const Param& mine = bench.param("part", DType::f64, {part, c.width});
      const int64_t first = world.rank() * part, n = std::clamp<int64_t>(c.padded - first, 0, part);
      if (n > 0) copy(w.value.rows(first, first + n), mine.value.rows(0, n));
      const Var x = tape.variable(bench.tensor("x", DType::f64, {c.rows, c.width}));
      const Tensor sum = ops::label_smoothing(tape, x, mine, targets.data(),
                                              {.vocab_size = c.vocab, .vocabulary = &world}, kEpsilon);
      const std::lock_guard lock(mutex);
      EXPECT_NEAR(read(sum), want, 1e-12 * (1 + std::abs(want))) << ranks;
      const std::vector<double> its = test::to_doubles(tape.grad(x)), dw = test::to_doubles(mine.grad);
      for (size_t i = 0; i < dx.size(); ++i) dx[i] += its[i];
      for (int64_t i = 0; i < n * c.width; ++i) {
        EXPECT_NEAR(dw[static_cast<size_t>(i)], want_dw[static_cast<size_t>(first * c.width + i)], 1e-12);
      }
    });
    test::expect_within(dx, want_dx, 1e-12, "dx");
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, LabelSmoothing,
                         testing::Values(SmoothingCase{0, 3, 4, 4}, SmoothingCase{1, 1, 1, 1},
                                         SmoothingCase{6, 5, 7, 8}, SmoothingCase{33, 70, 131, 160}));

TEST(LabelSmoothingGradients, BitsDoNotDependOnTheNumberOfThreads) {
  const SmoothingCase c{101, 130, 77, 80};
  test::expect_same_on_any_thread_count([c] {
    OpBench bench;
    Tape& tape = bench.tape();
    const Var x = tape.variable(bench.tensor("x", DType::f32, {c.rows, c.width}));
    Param& w = weight_of(bench, DType::f32, c);
    const std::vector<int32_t> targets = targets_of(c);
    ops::label_smoothing(tape, x, w, targets.data(), {c.vocab}, kEpsilon);
    return test::concatenate({tape.grad(x), w.grad});
  });
}

TEST(LabelSmoothingMisuse, IsNamed) {
  OpBench bench;
  const Var x = bench.tape().constant(bench.tensor("x", DType::f32, {2, 3}));
  Param& w = bench.param("w", DType::f32, {4, 3});
  const std::vector<int32_t> targets = {0, 1};
  const auto refused = [&](int64_t vocabulary, double epsilon) {
    EXPECT_THROW(ops::label_smoothing(bench.tape(), x, w, targets.data(), {vocabulary}, epsilon), Error);
  };
  refused(5, 0.1);
  refused(4, 1.0);
  refused(4, -0.1);
}

}  // namespace
}  // namespace ziggurat
