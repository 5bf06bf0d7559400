#include "tests/support/op_test.h"
#include <ziggurat/ops/dropout.h>
#include <ziggurat/ops/linear.h>

namespace ziggurat {
namespace {

using test::OpBench;

TEST(Tape, GradientOfAValueUsedTwiceIsTheSum) {
  OpBench bench;
  Param& w = bench.param("w", DType::f64, {3, 3});
  Param& v = bench.param("v", DType::f64, {3, 3});
  test::expect_gradients(bench, {bench.tensor("x", DType::f64, {2, 3})}, {&w, &v},
                         [&](Tape& t, const std::vector<Var>& in) {
                           const Var h = ops::linear(t, in[0], w);
                           const Var a = ops::linear(t, h, v);
                           const Var b = ops::linear(t, h, w);
                           // y = a w^T, plus nothing of b: an unused branch must not disturb the others.
                           (void)b;
                           return ops::linear(t, t.view(a, {2, 3}), w);
                         });
}

TEST(Tape, RecomputeGivesTheSameBitsAndLessMemory) {
  const auto run = [](bool recompute, int64_t* used) {
    OpBench bench;
    Param& w = bench.param("w", DType::f32, {64, 64}, 0.1);
    Tape& tape = bench.tape();
    tape.begin(bench.micro_batch);
    const Var x = tape.variable(bench.tensor("x", DType::f32, {32, 64}));
    Var y = x;
    for (int layer = 0; layer < 4; ++layer) {
      const auto segment = [&w](Tape& t, Var in) {
        return ops::linear(t, ops::linear(t, in, w, nullptr, ops::Activation::gelu_tanh), w);
      };
      y = recompute ? tape.recompute(y, segment) : segment(tape, y);
    }
    *used = bench.activations().used();
    tape.backward(y, bench.tensor("dy", DType::f32, {32, 64}));
    auto grads = test::to_doubles(w.grad);
    const auto dx = test::to_doubles(tape.grad(x));
    grads.insert(grads.end(), dx.begin(), dx.end());
    return grads;
  };
  int64_t plain = 0, less = 0;
  EXPECT_EQ(run(false, &plain), run(true, &less));
  EXPECT_LT(less, plain / 2);  // one of three tensors of each layer is kept
}

// In evaluation it keeps as little, and gives the same bits.
TEST(Tape, RecomputeKeepsLessWithoutRecording) {
  const auto run = [](bool recompute, int64_t* used) {
    OpBench bench;
    const Param& w = bench.param("w", DType::f32, {64, 64}, 0.1);
    Tape& tape = bench.tape();
    bench.micro_batch.training = false;
    tape.begin(bench.micro_batch);
    Var y = tape.constant(bench.tensor("x", DType::f32, {32, 64}));
    for (int layer = 0; layer < 4; ++layer) {
      const auto segment = [&w](Tape& t, Var in) { return ops::linear(t, ops::linear(t, in, w), w); };
      y = recompute ? tape.recompute(y, segment) : segment(tape, y);
    }
    *used = bench.activations().used();
    return test::to_doubles(y.value());
  };
  int64_t plain = 0, less = 0;
  EXPECT_EQ(run(false, &plain), run(true, &less));
  EXPECT_LE(less, plain * 5 / 8);  // one of two tensors of each layer, and the operands
}

// A model beside the one that learns: no gradients, no dropout, and only its answer stays.
TEST(Tape, WhatIsComputedApartLeavesItsValueAlone) {
  OpBench bench;
  Param &w = bench.param("w", DType::f32, {64, 64}, 0.1), &v = bench.param("v", DType::f32, {64, 64}, 0.1);
  Tape& tape = bench.tape();
  tape.begin(bench.micro_batch);
  const Tensor x = bench.tensor("x", DType::f32, {32, 64});
  const int64_t before = bench.activations().used();
  const Tensor y = tape.apart([&](Tape& t) {
    EXPECT_FALSE(t.recording());
    EXPECT_FALSE(t.micro_batch().training);
    EXPECT_TRUE(t.micro_batch().dropless);
    const Var h = ops::dropout(t, t.variable(x), 0.5, Purpose::hidden_dropout, 0);
    return ops::linear(t, ops::linear(t, h, w), w);
  });
  EXPECT_LE(bench.activations().used() - before, y.bytes() + 1024);
  EXPECT_TRUE(tape.recording());
  EXPECT_TRUE(tape.micro_batch().training);
  EXPECT_FALSE(tape.micro_batch().dropless);
  const Var out = ops::linear(tape, tape.variable(x), v);
  tape.backward(out, y);
  EXPECT_EQ(test::to_doubles(w.grad), std::vector<double>(64 * 64));
  EXPECT_NE(test::to_doubles(v.grad), std::vector<double>(64 * 64));
  const Var again = ops::linear(tape, ops::linear(tape, tape.constant(x), w), w);
  EXPECT_EQ(test::to_doubles(y), test::to_doubles(again.value()));
}

// A chain of values like the rows of experts: about as many in each layer, never the same number.
TEST(Tape, GradientsOfNearlyEqualSizeShareMemory) {
  OpBench bench;
  Tape& tape = bench.tape();
  tape.begin(bench.micro_batch);
  std::vector<Var> chain;
  for (int64_t layer = 0; layer < 12; ++layer) {
    const Var in = chain.empty() ? tape.variable(bench.zeros(DType::f32, {1})) : chain.back();
    const Var out = tape.output(DType::f32, {900 + 7 * layer, 16}, true);
    tape.record(out, [=](Tape& t, const Tensor&) { fill_zero(t.grad_slot(in).grad); });
    chain.push_back(out);
  }
  tape.backward(chain.back(), bench.zeros(DType::f32, chain.back().shape()));
  EXPECT_LE(bench.gradients().high_water(), 4 * 1024 * 16 * 4);  // two at a time, in at most two classes
}

// Work that is queued again as it was finds those of the micro-batch that was begun last.
TEST(Tape, NumbersOfEveryMicroBatchLieAtOnePlace) {
  OpBench bench;
  Tape& tape = bench.tape();
  const kernels::MicroBatchNumbers* const numbers = tape.numbers();
  const LatePhilox random = tape.random(Purpose::test, 4);
  for (const int64_t index : {0, 3}) {
    tape.begin({.seed = bench.micro_batch.seed, .step = 2, .index = index, .count = 4, .token_weight = 0.1});
    EXPECT_EQ(tape.numbers(), numbers);
    EXPECT_EQ(numbers->moment, tape.micro_batch().moment());
    EXPECT_EQ(numbers->token_weight, 0.1);
    EXPECT_EQ(numbers->loss_scale, 0.25);
    EXPECT_EQ(random.now().bits(7),
              Philox(bench.micro_batch.seed, Purpose::test, 4, tape.micro_batch().moment()).bits(7));
  }
}

TEST(Tape, EvaluationRecordsNothing) {
  OpBench bench;
  Param& w = bench.param("w", DType::f32, {4, 4});
  bench.tape().begin({.training = false});
  const Var y = ops::linear(bench.tape(), bench.tape().variable(bench.tensor("x", DType::f32, {2, 4})), w);
  EXPECT_FALSE(y.wants_grad());
}

}  // namespace
}  // namespace ziggurat
