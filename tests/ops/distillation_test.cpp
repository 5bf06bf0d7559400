#include <algorithm>
#include <cmath>
#include <mutex>

#include "tests/support/finite_differences.h"
#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/ops/distillation.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using ops::DistillationArgs;
using ops::LossArgs;
using test::OpBench;

constexpr double kTokenWeight = 0.25;
Tape& begin(OpBench& bench) {
  bench.micro_batch.token_weight = kTokenWeight;
  bench.tape().begin(bench.micro_batch);
  return bench.tape();
}

struct DistilCase {
  int64_t rows, width, teacher_width, vocab, padded, teacher_padded;
  double weight = 1, temperature = 1, z_loss = 0, logit_scale = 1;
};
void PrintTo(const DistilCase& c, std::ostream* os) {
  *os << c.rows << "x" << c.width << " from " << c.teacher_width << "->" << c.vocab << " of " << c.padded
      << ", " << c.teacher_padded << " weight " << c.weight << " T " << c.temperature << " z " << c.z_loss
      << " scale " << c.logit_scale;
}

// Every fifth target is ignored.
std::vector<int32_t> targets_of(const DistilCase& c) {
  const Philox rng(3, Purpose::test);
  std::vector<int32_t> targets;
  for (int64_t i = 0; i < c.rows; ++i) {
    const auto target = static_cast<int32_t>(rng.bits(static_cast<uint64_t>(i)) % c.vocab);
    targets.push_back(i % 5 == 4 ? -1 : target);
  }
  return targets;
}

// Logits of one row by the definition.
std::vector<double> logits_of(const std::vector<double>& x, const std::vector<double>& w, int64_t row,
                              int64_t width, int64_t vocab) {
  std::vector<double> l(static_cast<size_t>(vocab));
  for (int64_t j = 0; j < vocab; ++j) {
    for (int64_t k = 0; k < width; ++k) {
      l[static_cast<size_t>(j)] +=
          x[static_cast<size_t>(row * width + k)] * w[static_cast<size_t>(j * width + k)];
    }
  }
  return l;
}
double log_sum_exp(const std::vector<double>& l, double scale) {
  const double max = *std::max_element(l.begin(), l.end()) * scale;
  double sum = 0;
  for (const double logit : l) sum += std::exp(scale * logit - max);
  return max + std::log(sum);
}

struct Naive {
  double cross_entropy = 0, z_loss = 0, distillation = 0;
  std::vector<double> dx, dweight;
};
Naive naive(const DistilCase& c, const std::vector<double>& x, const std::vector<double>& w,
            const std::vector<double>& h, const std::vector<double>& v) {
  Naive n{0, 0, 0, std::vector<double>(x.size()), std::vector<double>(w.size())};
  const std::vector<int32_t> targets = targets_of(c);
  const double scale = 1 / c.temperature;
  for (int64_t i = 0; i < c.rows; ++i) {
    const int32_t target = targets[static_cast<size_t>(i)];
    if (target == -1) continue;
    const std::vector<double> z = logits_of(x, w, i, c.width, c.vocab),
                              t = logits_of(h, v, i, c.teacher_width, c.vocab);
    const double lse = log_sum_exp(z, 1), lse_q = log_sum_exp(z, scale), lse_p = log_sum_exp(t, scale);
    n.cross_entropy += lse - z[static_cast<size_t>(target)];
    n.z_loss += c.z_loss * lse * lse;
    for (size_t j = 0; j < z.size(); ++j) {
      const double log_p = scale * t[j] - lse_p, log_q = scale * z[j] - lse_q;
      n.distillation += c.weight * c.temperature * c.temperature * std::exp(log_p) * (log_p - log_q);
      const double dz = kTokenWeight * (std::exp(z[j] - lse) * (1 + 2 * c.z_loss * lse) -
                                        (static_cast<int32_t>(j) == target) +
                                        c.weight * c.temperature * (std::exp(log_q) - std::exp(log_p)));
      for (int64_t k = 0; k < c.width; ++k) {
        const auto at_x = static_cast<size_t>(i * c.width + k),
                   at_w = j * static_cast<size_t>(c.width) + static_cast<size_t>(k);
        n.dx[at_x] += dz * w[at_w];
        n.dweight[at_w] += dz * x[at_x];
      }
    }
  }
  return n;
}

class Distillation : public testing::TestWithParam<DistilCase> {
 protected:
  struct Operands {
    Tensor x, hidden;
    Param *weight, *teacher;
    Tensor distil_weight;
  };
  // Padding rows of both weights hold large values: they must not matter.
  static Operands operands(OpBench& bench, DType dtype, DType of_teacher, const DistilCase& c) {
    const auto padded = [&](const char* name, DType type, int64_t rows, int64_t width) {
      Param& w = bench.param(name, type, {rows, width}, c.logit_scale);
      const Tensor padding = w.value.rows(c.vocab, rows);
      if (padding.numel() > 0) copy(bench.tensor("padding", type, padding.shape(), 1.0, 50.0), padding);
      return &w;
    };
    const Tensor weight = bench.zeros(DType::f64, {1});
    weight.data<double>()[0] = c.weight;
    return {bench.tensor("x", dtype, {c.rows, c.width}),
            bench.tensor("hidden", of_teacher, {c.rows, c.teacher_width}),
            padded("w", dtype, c.padded, c.width),
            padded("teacher", of_teacher, c.teacher_padded, c.teacher_width), weight};
  }
  static std::vector<double> run(OpBench& bench, Var x, const Operands& o, const DistilCase& c) {
    const std::vector<int32_t> targets = targets_of(c);
    return test::to_doubles(ops::distillation(
        bench.tape(), x, *o.weight, targets.data(), LossArgs{.vocab_size = c.vocab, .z_loss = c.z_loss},
        {o.hidden, o.teacher}, {c.temperature, o.distil_weight.data<double>()}));
  }
};

TEST_P(Distillation, LossAndGradientsEqualNaiveReference) {
  const DistilCase c = GetParam();
  for (const Reproducible mode : {Reproducible::layout, Reproducible::strict}) {
    for (const auto& [dtype, of_teacher] : {std::pair{DType::f32, DType::f32},
                                            {DType::bf16, DType::bf16},
                                            {DType::f32, DType::bf16},
                                            {DType::bf16, DType::f32},
                                            {DType::f64, DType::f64}}) {
      OpBench bench(mode);
      Tape& tape = begin(bench);
      const Operands o = operands(bench, dtype, of_teacher, c);
      const Var x = tape.variable(o.x);
      const std::vector<double> got = run(bench, x, o, c);
      const Naive want = naive(c, test::to_doubles(o.x), test::to_doubles(o.weight->value),
                               test::to_doubles(o.hidden), test::to_doubles(o.teacher->value));
      // A logit is a sum of `width` terms of size up to 4 logit_scale in the accumulator; an exponential
      // carries the absolute error of its logit into a relative one.
      const auto width = static_cast<double>(std::max(c.width, c.teacher_width));
      const double magnitude = 4 * c.logit_scale * width;
      const double unit = dtype == DType::f64 ? 0x1p-52 : 0x1p-23;
      const double logit_error = unit * magnitude * width;
      const auto rows = static_cast<double>(c.rows);
      EXPECT_NEAR(got[0], want.cross_entropy, 4 * logit_error * rows);
      EXPECT_NEAR(got[1], want.z_loss, 1e-12 + 4 * logit_error * 2 * c.z_loss * magnitude * rows);
      const double squared = c.temperature * c.temperature;
      EXPECT_NEAR(got[4], want.distillation,
                  8 * logit_error * c.weight * squared * rows * (1 + magnitude / c.temperature))
          << to_string(dtype) << " of " << to_string(of_teacher);
      const double dlogit_size =
          kTokenWeight * (1 + 2 * c.z_loss * magnitude + c.weight * std::max(1.0, c.temperature));
      const double of_bf16 = dtype == DType::bf16 ? 2 : 1;
      test::expect_close(tape.grad(x), want.dx, c.vocab + c.width, of_bf16 * magnitude * dlogit_size,
                         std::string("dx ") + to_string(dtype));
      const auto sum_of_rows = static_cast<int64_t>(c.rows + c.width);
      // dweight is kept in f32 but made from dlogits that are rounded to bf16.
      const double rounding = dtype == DType::bf16 ? 0x1p15 / static_cast<double>(sum_of_rows) : 1;
      test::expect_close(o.weight->grad, want.dweight, sum_of_rows,
                         4 * dlogit_size * std::max(rounding, 1.0) * std::sqrt(std::max(rows, 1.0)),
                         std::string("dweight ") + to_string(dtype));
    }
  }
}

// Ranks with a part of both vocabularies each: the same losses, and parts of the same gradients. Some parts
// hold nothing but padding.
TEST_P(Distillation, RanksMayShareTheVocabulary) {
  DistilCase c = GetParam();
  for (const int ranks : {2, 3}) {
    const int64_t part = (c.padded + ranks - 1) / ranks + (ranks == 3 ? c.vocab : 0);
    OpBench whole;
    begin(whole);
    const Operands all = operands(whole, DType::f64, DType::f64, c);
    const Naive want = naive(c, test::to_doubles(all.x), test::to_doubles(all.weight->value),
                             test::to_doubles(all.hidden), test::to_doubles(all.teacher->value));
    std::mutex mutex;
    std::vector<double> dx(want.dx.size());
    run_on_threads(ranks, [&](Communicator& world) {
      OpBench bench;
      Tape& tape = begin(bench);
      const int64_t first = world.rank() * part, n = std::clamp<int64_t>(c.vocab - first, 0, part);
      const auto part_of = [&](const char* name, const Tensor& from) {
        Param& mine = bench.param(name, DType::f64, {part, from.dim(1)}, 50.0);  // padding, too
        if (n > 0) copy(from.rows(first, first + n), mine.value.rows(0, n));
        return &mine;
      };
      const Param *mine = part_of("w", all.weight->value), *teacher = part_of("teacher", all.teacher->value);
      const Var x = tape.variable(bench.tensor("x", DType::f64, {c.rows, c.width}));
      const std::vector<int32_t> targets = targets_of(c);
      const std::vector<double> got = test::to_doubles(
          ops::distillation(tape, x, *mine, targets.data(),
                            LossArgs{.vocab_size = c.vocab, .z_loss = c.z_loss, .vocabulary = &world},
                            {all.hidden, teacher}, {c.temperature, all.distil_weight.data<double>()}));
      const std::lock_guard lock(mutex);
      EXPECT_NEAR(got[0], want.cross_entropy, 1e-9 * (1 + std::abs(want.cross_entropy))) << ranks;
      EXPECT_NEAR(got[1], want.z_loss, 1e-9 * (1 + want.z_loss));
      EXPECT_NEAR(got[4], want.distillation, 1e-9 * (1 + want.distillation));
      const std::vector<double> its = test::to_doubles(tape.grad(x)), dw = test::to_doubles(mine->grad);
      for (size_t i = 0; i < dx.size(); ++i) dx[i] += its[i];
      const double size = 1 + test::largest(want.dweight);
      for (int64_t i = 0; i < part * c.width; ++i) {
        const double expected =
            i < n * c.width ? want.dweight[static_cast<size_t>(first * c.width + i)] : 0.0;
        ASSERT_NEAR(dw[static_cast<size_t>(i)], expected, 1e-9 * size) << ranks;
      }
    });
    test::expect_within(dx, want.dx, 1e-9 * (1 + test::largest(want.dx)), "dx");
  }
}

// The loss is no Var, so differences are taken here.
TEST_P(Distillation, GradientsEqualFiniteDifferences) {
  const DistilCase c = GetParam();
  if (c.rows * c.width * c.vocab > 2000 || c.logit_scale > 1) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  Tape& tape = begin(bench);
  const Operands o = operands(bench, DType::f64, DType::f64, c);
  const auto total = [&](std::vector<double>* dx) {
    tape.begin(bench.micro_batch);
    const Var x = tape.variable(o.x);
    const std::vector<double> sums = run(bench, x, o, c);
    if (dx != nullptr) *dx = test::to_doubles(tape.grad(x));
    return kTokenWeight * (sums[0] + sums[1] + sums[4]);
  };
  std::vector<double> dx;
  total(&dx);
  const std::vector<double> dweight = test::to_doubles(o.weight->grad);
  const auto loss = [&] { return total(nullptr); };
  test::expect_central_differences(o.x, dx, loss, 1e-7);
  test::expect_central_differences(o.weight->value, dweight, loss, 1e-7);
  EXPECT_EQ(test::to_doubles(o.teacher->grad),
            std::vector<double>(static_cast<size_t>(o.teacher->grad.numel())));
}

TEST_P(Distillation, BitsDoNotDependOnTheNumberOfThreadsInStrictMode) {
  const DistilCase c = GetParam();
  const int threads = thread_count();
  std::vector<std::vector<double>> results;
  for (const int n : {1, 3}) {
    set_thread_count(n);
    OpBench bench(Reproducible::strict);
    begin(bench);
    const Operands o = operands(bench, DType::f32, DType::f32, c);
    const Var x = bench.tape().variable(o.x);
    results.push_back(run(bench, x, o, c));
    for (const double g : test::to_doubles(bench.tape().grad(x))) results.back().push_back(g);
    for (const double g : test::to_doubles(o.weight->grad)) results.back().push_back(g);
  }
  set_thread_count(threads);
  EXPECT_EQ(results[0], results[1]);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Distillation,
    testing::Values(DistilCase{0, 3, 2, 4, 5, 4}, DistilCase{1, 1, 1, 1, 1, 1}, DistilCase{1, 5, 3, 2, 2, 4},
                    DistilCase{7, 5, 6, 9, 13, 11, 0.5, 1, 0.02},
                    DistilCase{6, 3, 4, 16, 16, 16, 2, 2.5, 0.01},
                    DistilCase{9, 16, 12, 33, 40, 33, 1, 1, 0.01, 10},  // logits to about +-80
                    DistilCase{9, 16, 12, 33, 40, 33, 1, 0.5, 0, 4},
                    DistilCase{515, 8, 6, 2500, 2512, 2560, 1, 1, 1e-3},
                    DistilCase{515, 8, 6, 2500, 2512, 2560, 0.7, 3, 1e-3}));

// The divergence of a model from itself is 0, and so is its gradient: what is left is the cross-entropy
// alone.
TEST(Distillation, OfATeacherThatIsTheStudentIsTheCrossEntropy) {
  const std::vector<int32_t> targets = {0, 40, 3, -1, 7};
  for (const double temperature : {1.0, 2.0}) {
    OpBench bench;
    Tape& tape = begin(bench);
    const Tensor x_value = bench.tensor("x", DType::f32, {5, 6});
    Param& w = bench.param("w", DType::f32, {48, 6});
    const double weight = 1;
    const Var alone = tape.variable(x_value);
    const std::vector<double> want =
        test::to_doubles(ops::cross_entropy(tape, alone, w, targets.data(), {41}));
    const std::vector<double> dw = test::to_doubles(w.grad);
    fill_zero(w.grad);
    const Var x = tape.variable(x_value);
    const std::vector<double> got = test::to_doubles(
        ops::distillation(tape, x, w, targets.data(), {41}, {x_value, &w}, {temperature, &weight}));
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(got[i], want[i]);
    EXPECT_NEAR(got[4], 0, 1e-5);
    test::expect_close(tape.grad(x), test::to_doubles(tape.grad(alone)), 48, 4, "dx");
    test::expect_close(w.grad, dw, 48, 4, "dweight");
  }
}

TEST(Distillation, AddsToAGradientThatIsThere) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    OpBench bench;
    Tape& tape = begin(bench);
    const Var x = tape.variable(bench.tensor("x", dtype, {4, 6}));
    Param& w = bench.param("w", dtype, {8, 6});
    const Param& teacher = bench.param("teacher", dtype, {8, 3});
    const Tensor hidden = bench.tensor("hidden", dtype, {4, 3});
    const std::vector<int32_t> targets = {0, 7, 3, -1};
    const double weight = 0.5;
    const auto run = [&] {
      ops::distillation(tape, x, w, targets.data(), {8}, {hidden, &teacher}, {1, &weight});
    };
    run();
    auto twice_x = test::to_doubles(tape.grad(x)), twice_w = test::to_doubles(w.grad);
    run();
    for (double& g : twice_x) g *= 2;
    for (double& g : twice_w) g *= 2;
    test::expect_close(tape.grad(x), twice_x, 8, 4);
    test::expect_close(w.grad, twice_w, 8, 4);
  }
}

TEST(Distillation, MetaDeviceTakesTheSameWorkspaceAndTouchesNothing) {
  const auto high_water = [](Device device) {
    Arena nodes("nodes", 1 << 20), tensors("t", 1 << 24, device), workspace("w", 1 << 26, device);
    Stream stream(device);
    Tape tape(nodes, tensors, workspace, stream);
    tape.begin({});
    const auto made = [&](DType dtype, Shape shape) {
      const Tensor tensor = allocate(tensors, dtype, shape);
      fill_zero(tensor, stream);
      return tensor;
    };
    const Param w = {made(DType::f32, {50, 8}), made(DType::f32, {50, 8})},
                teacher = {made(DType::f32, {50, 4}), {}};
    const Tensor x = made(DType::f32, {700, 8}), hidden = made(DType::f32, {700, 4}),
                 weight = made(DType::f64, {1});
    const std::vector<int32_t> targets(700, 3);
    const int32_t* readable = device == Device::cpu ? targets.data() : nullptr;
    ops::distillation(tape, tape.constant(x), w, readable, {50}, {hidden, &teacher},
                      {2, weight.data<double>()});
    return workspace.high_water();
  };
  EXPECT_EQ(high_water(Device::meta), high_water(Device::cpu));
}

TEST(DistillationMisuse, ShapesDtypesAndTargetsAreNamed) {
  OpBench bench;
  const Param &w = bench.param("w", DType::f32, {6, 4}), &teacher = bench.param("t", DType::f32, {7, 3}),
              &wide = bench.param("wide", DType::f64, {7, 3});
  const double weight = 1;
  const auto run = [&](int64_t vocab, int32_t target, const Param& of_teacher, int64_t teacher_rows,
                       double temperature) {
    const Var x = bench.tape().constant(bench.tensor("x", DType::f32, {1, 4}));
    const Tensor hidden = bench.tensor("h", of_teacher.value.dtype(), {teacher_rows, 3});
    ops::distillation(bench.tape(), x, w, &target, {vocab}, {hidden, &of_teacher}, {temperature, &weight});
  };
  EXPECT_NO_THROW(run(5, 4, teacher, 1, 1));
  EXPECT_THROW(run(7, 4, teacher, 1, 1), Error);  // more words than the student's rows
  EXPECT_THROW(run(5, 5, teacher, 1, 1), Error);  // a padding row as target
  EXPECT_THROW(run(5, 4, teacher, 2, 1), Error);  // other tokens
  EXPECT_THROW(run(5, 4, wide, 1, 1), Error);     // f64 beside f32
  EXPECT_THROW(run(5, 4, teacher, 1, 0), Error);
}

}  // namespace
}  // namespace ziggurat
