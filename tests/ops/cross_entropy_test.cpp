#include <algorithm>
#include <cmath>
#include <mutex>

#include "tests/support/finite_differences.h"
#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/ops/cross_entropy.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using ops::LossArgs;
using ops::LossResult;
using test::OpBench;

LossResult loss_of(Tape& tape, Var x, const Param& w, const int32_t* targets, const LossArgs& args) {
  return ops::read_loss(ops::cross_entropy(tape, x, w, targets, args), tape.stream());
}

constexpr double kTokenWeight = 0.25;
Tape& begin(OpBench& bench) {
  bench.micro_batch.token_weight = kTokenWeight;
  bench.tape().begin(bench.micro_batch);
  return bench.tape();
}

struct LossCase {
  int64_t rows, width, vocab, padded;
  double z_loss = 0, logit_scale = 1;
  float jump = 1;  // logits beyond the first tile of the vocabulary are as many times larger
};
void PrintTo(const LossCase& c, std::ostream* os) {
  *os << c.rows << "x" << c.width << "->" << c.vocab << " of " << c.padded << " z " << c.z_loss << " scale "
      << c.logit_scale << " jump " << c.jump;
}

// Every fifth target is ignored.
std::vector<int32_t> targets_of(const LossCase& c) {
  const Philox rng(3, Purpose::test);
  std::vector<int32_t> targets;
  for (int64_t i = 0; i < c.rows; ++i) {
    const auto target = static_cast<int32_t>(rng.bits(static_cast<uint64_t>(i)) % c.vocab);
    targets.push_back(i % 5 == 4 ? -1 : target);
  }
  return targets;
}

// Losses and gradients by the definition.
struct Naive {
  LossResult result;
  std::vector<double> losses, dx, dweight;
};
Naive naive(const std::vector<double>& x, const std::vector<double>& w, const LossCase& c,
            const LossArgs& args) {
  Naive n{{}, {}, std::vector<double>(x.size()), std::vector<double>(w.size())};
  const auto at = [&](const std::vector<double>& m, int64_t row, int64_t column) {
    return m[static_cast<size_t>(row * c.width + column)];
  };
  const std::vector<int32_t> targets = targets_of(c);
  for (int64_t i = 0; i < c.rows; ++i) {
    const int32_t target = targets[static_cast<size_t>(i)];
    n.losses.push_back(0);
    if (target == -1) continue;
    std::vector<double> l(static_cast<size_t>(c.vocab));
    for (int64_t j = 0; j < c.vocab; ++j) {
      for (int64_t k = 0; k < c.width; ++k) l[static_cast<size_t>(j)] += at(x, i, k) * at(w, j, k);
    }
    const double max = *std::max_element(l.begin(), l.end());
    double sum = 0;
    for (const double logit : l) sum += std::exp(logit - max);
    const double lse = max + std::log(sum);
    n.losses.back() = lse - l[static_cast<size_t>(target)];
    n.result.sum += n.losses.back();
    n.result.z_loss_sum += args.z_loss * lse * lse;
    n.result.tokens += 1;
    n.result.correct += l[static_cast<size_t>(target)] == max;
    for (int64_t j = 0; j < c.vocab; ++j) {
      const double dl =
          kTokenWeight *
          (std::exp(l[static_cast<size_t>(j)] - lse) * (1 + 2 * args.z_loss * lse) - (j == target));
      for (int64_t k = 0; k < c.width; ++k) {
        n.dx[static_cast<size_t>(i * c.width + k)] += dl * at(w, j, k);
        n.dweight[static_cast<size_t>(j * c.width + k)] += dl * at(x, i, k);
      }
    }
  }
  return n;
}

class CrossEntropy : public testing::TestWithParam<LossCase> {
 protected:
  // Padding rows of the weight hold large values: they must not matter.
  static Param& weight(OpBench& bench, DType dtype, const LossCase& c) {
    Param& w = bench.param("w", dtype, {c.padded, c.width}, c.logit_scale);
    const Tensor beyond = w.value.rows(std::min(ops::kVocabularyTile, c.vocab), c.vocab);
    visit_float_dtype(dtype, [&]<class T>() {
      T* const x = beyond.data<T>();
      for (int64_t i = 0; i < beyond.numel(); ++i) x[i] = T(c.jump * static_cast<float>(x[i]));
    });
    const Tensor padding = w.value.rows(c.vocab, c.padded);
    if (padding.numel() > 0) {
      copy(bench.tensor("padding", dtype, padding.shape(), 1.0, 50.0), padding);
    }
    return w;
  }
};

TEST_P(CrossEntropy, LossAndGradientsEqualNaiveReference) {
  const LossCase c = GetParam();
  const std::vector<int32_t> targets = targets_of(c);
  for (const Reproducible mode : {Reproducible::layout, Reproducible::strict}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      OpBench bench(mode);
      Tape& tape = begin(bench);
      const Tensor x_value = bench.tensor("x", dtype, {c.rows, c.width});
      Param& w = weight(bench, dtype, c);
      const Tensor losses = bench.zeros(DType::f64, {c.rows});
      const LossArgs args = {c.vocab, -1, c.z_loss, losses.data<double>()};
      const Var x = tape.variable(x_value);
      const LossResult got = loss_of(tape, x, w, targets.data(), args);
      const Naive want = naive(test::to_doubles(x_value), test::to_doubles(w.value), c, args);

      EXPECT_EQ(got.tokens, want.result.tokens);
      EXPECT_EQ(got.correct, want.result.correct);
      // A logit is a sum of `width` terms of size up to 4 logit_scale in the accumulator; an exponential
      // carries the absolute error of its logit into a relative one.
      const double magnitude = 4 * c.logit_scale * c.jump * static_cast<double>(c.width);
      const double unit = dtype == DType::f64 ? 0x1p-52 : 0x1p-23;
      const double logit_error = unit * magnitude * static_cast<double>(c.width);
      for (int64_t i = 0; i < c.rows; ++i) {
        ASSERT_NEAR(losses.data<double>()[i], want.losses[static_cast<size_t>(i)], 4 * logit_error)
            << to_string(dtype) << " row " << i;
      }
      const auto rows = static_cast<double>(c.rows);
      EXPECT_NEAR(got.sum, want.result.sum, 4 * logit_error * rows);
      EXPECT_NEAR(got.z_loss_sum, want.result.z_loss_sum,
                  1e-12 + 4 * logit_error * 2 * c.z_loss * magnitude * rows);
      const double dlogit_size = kTokenWeight * (1 + 2 * c.z_loss * magnitude);
      test::expect_close(tape.grad(x), want.dx, c.vocab + c.width, magnitude * dlogit_size,
                         std::string("dx ") + to_string(dtype));
      const auto sum_of_rows = static_cast<int64_t>(c.rows + c.width);
      // dweight is kept in f32 but made from dlogits that a bf16 CPU rounds to bf16.
      const double rounding = dtype == DType::bf16 ? 0x1p15 / static_cast<double>(sum_of_rows) : 1;
      test::expect_close(w.grad, want.dweight, sum_of_rows,
                         4 * dlogit_size * std::max(rounding, 1.0) * std::sqrt(std::max(rows, 1.0)),
                         std::string("dweight ") + to_string(dtype));
    }
  }
}

// Ranks with a part of the vocabulary each: the same losses, and parts of the same gradients. Some parts hold
// nothing but padding.
TEST_P(CrossEntropy, RanksThatShareTheVocabularyComputeTheSame) {
  const LossCase c = GetParam();
  const std::vector<int32_t> targets = targets_of(c);
  for (const int ranks : {2, 4}) {
    const int64_t part = (c.padded + ranks - 1) / ranks;
    OpBench whole;
    const Param& w = weight(whole, DType::f64, c);
    const Tensor x_value = whole.tensor("x", DType::f64, {c.rows, c.width});
    const LossArgs alone = {c.vocab, -1, c.z_loss};
    const Naive want = naive(test::to_doubles(x_value), test::to_doubles(w.value), c, alone);
    std::mutex mutex;
    std::vector<double> dx(want.dx.size());
    run_on_threads(ranks, [&](Communicator& world) {
      OpBench bench;
      Tape& tape = begin(bench);
      const Param& mine = bench.param("part", DType::f64, {part, c.width});
      const int64_t first = world.rank() * part, n = std::clamp<int64_t>(c.padded - first, 0, part);
      if (n > 0) copy(w.value.rows(first, first + n), mine.value.rows(0, n));
      const Tensor own = bench.tensor("x", DType::f64, {c.rows, c.width});
      const Var x = tape.variable(own);
      LossArgs args = alone;
      args.vocabulary = &world;
      const LossResult got = loss_of(tape, x, mine, targets.data(), args);
      const std::lock_guard lock(mutex);
      EXPECT_NEAR(got.sum, want.result.sum, 1e-9 * (1 + std::abs(want.result.sum))) << ranks;
      EXPECT_NEAR(got.z_loss_sum, want.result.z_loss_sum, 1e-9 * (1 + want.result.z_loss_sum));
      EXPECT_EQ(got.tokens, want.result.tokens);
      EXPECT_EQ(got.correct, want.result.correct);
      const std::vector<double> its = test::to_doubles(tape.grad(x)), dw = test::to_doubles(mine.grad);
      for (size_t i = 0; i < dx.size(); ++i) dx[i] += its[i];
      const double size = 1 + test::largest(want.dweight);
      for (int64_t i = 0; i < n * c.width; ++i) {
        EXPECT_NEAR(dw[static_cast<size_t>(i)], want.dweight[static_cast<size_t>(first * c.width + i)],
                    1e-9 * size);
      }
    });
    test::expect_within(dx, want.dx, 1e-9 * (1 + test::largest(want.dx)), "dx");
  }
}

// The loss is no Var, so differences are taken here.
TEST_P(CrossEntropy, GradientsEqualFiniteDifferences) {
  const LossCase c = GetParam();
  if (c.rows * c.width * c.vocab > 2000 || c.logit_scale > 1) GTEST_SKIP() << "forward-only size";
  const std::vector<int32_t> targets = targets_of(c);
  OpBench bench;
  Tape& tape = begin(bench);
  const Tensor x_value = bench.tensor("x", DType::f64, {c.rows, c.width});
  Param& w = weight(bench, DType::f64, c);
  const LossArgs args = {c.vocab, -1, c.z_loss};
  const auto total = [&](std::vector<double>* dx) {
    tape.begin(bench.micro_batch);
    const Var x = tape.variable(x_value);
    const LossResult r = loss_of(tape, x, w, targets.data(), args);
    if (dx != nullptr) *dx = test::to_doubles(tape.grad(x));
    return kTokenWeight * (r.sum + r.z_loss_sum);
  };
  std::vector<double> dx;
  total(&dx);
  const std::vector<double> dweight = test::to_doubles(w.grad);
  const auto loss = [&] { return total(nullptr); };
  test::expect_central_differences(x_value, dx, loss, 1e-7);
  test::expect_central_differences(w.value, dweight, loss, 1e-7);
}

TEST_P(CrossEntropy, BitsDoNotDependOnTheNumberOfThreadsInStrictMode) {
  const LossCase c = GetParam();
  const std::vector<int32_t> targets = targets_of(c);
  const int threads = thread_count();
  std::vector<std::vector<double>> results;
  for (const int n : {1, 3}) {
    set_thread_count(n);
    OpBench bench(Reproducible::strict);
    const Var x = begin(bench).variable(bench.tensor("x", DType::f32, {c.rows, c.width}));
    Param& w = weight(bench, DType::f32, c);
    const LossResult r = loss_of(bench.tape(), x, w, targets.data(), {c.vocab, -1, c.z_loss});
    results.push_back(test::to_doubles(bench.tape().grad(x)));
    for (const double g : test::to_doubles(w.grad)) results.back().push_back(g);
    results.back().push_back(r.sum);
  }
  set_thread_count(threads);
  EXPECT_EQ(results[0], results[1]);
}

INSTANTIATE_TEST_SUITE_P(Shapes, CrossEntropy,
                         testing::Values(LossCase{0, 3, 4, 5}, LossCase{1, 1, 1, 1}, LossCase{1, 5, 2, 2},
                                         LossCase{7, 5, 9, 13, 0.02}, LossCase{6, 3, 16, 16},
                                         LossCase{9, 16, 33, 40, 0.01, 10},  // logits to about +-80
                                         LossCase{515, 8, 2500, 2512, 1e-3},
                                         // The second tile's largest logits lie up to 100 above the first's.
                                         LossCase{40, 8, 2500, 2512, 1e-3, 1, 10}));

TEST(CrossEntropy, AddsToAGradientThatIsThere) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    OpBench bench;
    Tape& tape = begin(bench);
    const Var x = tape.variable(bench.tensor("x", dtype, {4, 6}));
    Param& w = bench.param("w", dtype, {8, 6});
    const std::vector<int32_t> targets = {0, 7, 3, -1};
    ops::cross_entropy(tape, x, w, targets.data(), {8});
    const auto once_x = test::to_doubles(tape.grad(x)), once_w = test::to_doubles(w.grad);
    ops::cross_entropy(tape, x, w, targets.data(), {8});
    auto twice_x = once_x, twice_w = once_w;
    for (double& g : twice_x) g *= 2;
    for (double& g : twice_w) g *= 2;
    test::expect_close(tape.grad(x), twice_x, 8, 4);
    test::expect_close(w.grad, twice_w, 8, 4);
  }
}

TEST(CrossEntropy, EvaluationAndFrozenWeightsLeaveGradientsAlone) {
  OpBench bench;
  Tape& tape = begin(bench);
  const Tensor x_value = bench.tensor("x", DType::f32, {3, 4});
  Param& w = bench.param("w", DType::f32, {5, 4});
  const std::vector<int32_t> targets = {0, 4, 2};
  const std::vector<double> zeros(20);

  const Param frozen = {w.value, {}};
  const Var trained = tape.variable(x_value);
  const double sum = loss_of(tape, trained, frozen, targets.data(), {5}).sum;
  EXPECT_TRUE(static_cast<bool>(tape.grad(trained)));

  MicroBatch evaluation = bench.micro_batch;
  evaluation.training = false;
  tape.begin(evaluation);
  const Var x = tape.variable(x_value);
  EXPECT_EQ(loss_of(tape, x, w, targets.data(), {5}).sum, sum);
  EXPECT_FALSE(static_cast<bool>(tape.grad(x)));
  EXPECT_EQ(test::to_doubles(w.grad), zeros);
}

TEST(CrossEntropy, MetaDeviceTakesTheSameWorkspaceAndTouchesNothing) {
  const auto high_water = [](Device device) {
    Arena nodes("nodes", 1 << 20), tensors("t", 1 << 24, device), workspace("w", 1 << 26, device);
    Stream stream(device);
    Tape tape(nodes, tensors, workspace, stream);
    tape.begin({});
    const Param w = {allocate(tensors, DType::f32, {50, 8}), allocate(tensors, DType::f32, {50, 8})};
    const Tensor x = allocate(tensors, DType::f32, {700, 8});
    const std::vector<int32_t> targets(700, 3);
    if (device == Device::cpu) fill_zero(w.value), fill_zero(w.grad), fill_zero(x);
    const int32_t* readable = device == Device::cpu ? targets.data() : nullptr;
    ops::cross_entropy(tape, tape.constant(x), w, readable, {50});
    return workspace.high_water();
  };
  EXPECT_EQ(high_water(Device::meta), high_water(Device::cpu));
}

TEST(CrossEntropyMisuse, ShapesDtypesAndTargetsAreNamed) {
  OpBench bench;
  const Param& w = bench.param("w", DType::f32, {6, 4});
  const auto run = [&](DType dtype, int64_t width, int64_t vocab, int32_t target) {
    const Var x = bench.tape().constant(bench.tensor("x", dtype, {1, width}));
    ops::cross_entropy(bench.tape(), x, w, &target, {vocab});
  };
  EXPECT_NO_THROW(run(DType::f32, 4, 5, 4));
  EXPECT_THROW(run(DType::f32, 3, 5, 4), Error);
  EXPECT_THROW(run(DType::f64, 4, 5, 4), Error);
  EXPECT_THROW(run(DType::f32, 4, 7, 4), Error);   // more words than rows
  EXPECT_THROW(run(DType::f32, 4, 0, -1), Error);  // no word
  EXPECT_THROW(run(DType::f32, 4, 5, 5), Error);   // a padding row as target
  EXPECT_THROW(run(DType::f32, 4, 5, -2), Error);
}

}  // namespace
}  // namespace ziggurat
