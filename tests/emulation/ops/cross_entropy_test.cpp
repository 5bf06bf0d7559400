// The head and its loss on the emulated device against the CPU: what a training step computes, and puts into
// gradients, without a read by the host.
#include "tests/emulation/emulated_test.h"
#include "tests/support/device_bench.h"
#include <ziggurat/ops/cross_entropy.h>
#include <ziggurat/runtime/device_work.h>

namespace ziggurat::emulation {
namespace {

struct HeadCase {
  int64_t rows, width, vocab, padded;
  double z_loss = 0;
  bool again = false;      // a second time, so that all gradients are added to
  bool unwritten = false;  // the weight's gradient counts as zeros and holds anything
  float jump = 1;          // weights beyond the first tile are so many times larger
};
void PrintTo(const HeadCase& c, std::ostream* os) {
  *os << c.rows << "x" << c.width << "->" << c.vocab << " of " << c.padded << " z " << c.z_loss
      << (c.again ? " again" : "") << (c.unwritten ? " unwritten" : "") << " jump " << c.jump;
}

std::vector<int32_t> targets_of(const HeadCase& c) {
  std::vector<int32_t> targets;
  for (int64_t i = 0; i < c.rows; ++i) {
    targets.push_back(i % 5 == 4 ? -1 : static_cast<int32_t>(i * 7919 % c.vocab));
  }
  return targets;
}

struct Results {
  ops::LossResult loss;
  std::vector<double> token_losses, dx, dweight;
};

Results run(Device device, const HeadCase& c, DType dtype) {
  test::OpBench host;
  test::DeviceBench bench(device, int64_t{1} << 26);
  Tape& tape = bench.tape();
  tape.begin({.token_weight = 0.25});
  const Tensor x_here = host.tensor("x", dtype, {c.rows, c.width}),
               w_here = host.tensor("w", dtype, {c.padded, c.width});
  visit_float_dtype(dtype, [&]<class T>() {
    for (int64_t i = ops::kVocabularyTile * c.width; i < w_here.numel(); ++i) {
      w_here.data<T>()[i] = T(c.jump * static_cast<float>(w_here.data<T>()[i]));
    }
  });
  std::vector<int32_t> targets = targets_of(c);
  const Tensor targets_there = bench.on_device(Tensor(targets.data(), DType::i32, {c.rows}));
  const Tensor token_losses = bench.empty(DType::f64, {c.rows});
  const Var x = tape.variable(bench.on_device(x_here));
  Param w = bench.param_on_device(w_here);
  bool unwritten = c.unwritten;
  if (unwritten) {
    w.unwritten = &unwritten;
    copy(host.tensor("anything", DType::f32, w.grad.shape()), w.grad, bench.stream());
  }
  const ops::LossArgs args{c.vocab, -1, c.z_loss, token_losses.data<double>()};
  Results results;
  for (int times = c.again ? 2 : 1; times > 0; --times) {
    const int64_t waits = device_work().waits;
    const Tensor sums = ops::cross_entropy(tape, x, w, targets_there.data<int32_t>(), args);
    EXPECT_EQ(device_work().waits, waits) << "the host waited";
    results.loss = ops::read_loss(sums, bench.stream());
  }
  EXPECT_FALSE(unwritten);
  results.token_losses = bench.values(token_losses);
  results.dx = bench.values(tape.grad(x));
  results.dweight = bench.values(w.grad);
  return results;
}

class EmulatedHead : public EmulatedTest, public testing::WithParamInterface<HeadCase> {};

TEST_P(EmulatedHead, LossAndGradientsEqualTheCpus) {
  const HeadCase& c = GetParam();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    SCOPED_TRACE(to_string(dtype));
    const Results want = run(Device::cpu, c, dtype), got = run(Device::cuda, c, dtype);
    EXPECT_EQ(got.loss.tokens, want.loss.tokens);
    EXPECT_EQ(got.loss.correct, want.loss.correct);
    // A logit is a sum of `width` products, whose fp32 error is one of the loss.
    const double error = 0x1p-22 * static_cast<double>(c.width) * (1 + test::largest(want.token_losses));
    EXPECT_NEAR(got.loss.sum, want.loss.sum, error * static_cast<double>(c.rows));
    EXPECT_NEAR(got.loss.z_loss_sum, want.loss.z_loss_sum,
                error * static_cast<double>(c.rows) * c.z_loss * 2 * test::largest(want.token_losses));
    test::expect_within(got.token_losses, want.token_losses, error, "token losses");
    // Exponentials and factors are rounded to the dtype on their way into the gradients.
    test::expect_within(got.dx, want.dx, test::random_walk(dtype, 4) * test::largest(want.dx), "dx");
    test::expect_within(got.dweight, want.dweight, test::random_walk(dtype, 4) * test::largest(want.dweight),
                        "dweight");
  }
}

// One chunk and tile; several of both, the last ones partial; a reference that moves between tiles.
INSTANTIATE_TEST_SUITE_P(Shapes, EmulatedHead,
                         testing::Values(HeadCase{1, 8, 5, 5}, HeadCase{40, 24, 50, 64, 1e-3},
                                         HeadCase{40, 24, 50, 64, 0, true},
                                         HeadCase{33, 8, 61, 64, 1e-3, true, true},
                                         HeadCase{515, 8, 2500, 2512, 1e-3, false, true},
                                         HeadCase{40, 8, 2500, 2512, 1e-3, true, false, 10}));

class EmulatedHeadAlone : public EmulatedTest {};

TEST_F(EmulatedHeadAlone, TheHeadLeavesGradientsAloneInEvaluation) {
  test::OpBench host;
  test::DeviceBench bench(Device::cuda);
  bench.tape().begin({.training = false});
  const Var x = bench.tape().variable(bench.on_device(host.tensor("x", DType::f32, {3, 4})));
  const Param w = bench.param_on_device(host.tensor("w", DType::f32, {5, 4}));
  std::vector<int32_t> targets = {0, -1, 4};
  const Tensor there = bench.on_device(Tensor(targets.data(), DType::i32, {3}));
  const Tensor sums = ops::cross_entropy(bench.tape(), x, w, there.data<int32_t>(), {5});
  EXPECT_EQ(ops::read_loss(sums, bench.stream()).tokens, 2);
  EXPECT_FALSE(static_cast<bool>(bench.tape().grad(x)));
  EXPECT_EQ(bench.values(w.grad), std::vector<double>(20, 0.0));
}

}  // namespace
}  // namespace ziggurat::emulation
