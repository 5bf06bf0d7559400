#include "tests/support/op_test.h"
#include <ziggurat/ops/add.h>
#include <ziggurat/ops/dropout.h>
#include <ziggurat/ops/dropout_add.h>

namespace ziggurat {
namespace {

using test::OpBench;
constexpr Purpose kPurpose = Purpose::hidden_dropout;
constexpr int64_t kLayer = 4;

class DropoutAdd : public testing::TestWithParam<int64_t> {};  // elements

TEST_P(DropoutAdd, ForwardEqualsNaiveReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    Tape& tape = bench.tape();
    const Tensor x = bench.tensor("x", dtype, {GetParam()}), r = bench.tensor("r", dtype, {GetParam()});
    const Var y = ops::dropout_add(tape, tape.constant(x), tape.constant(r), 0.25, kPurpose, kLayer);
    const MicroBatch& m = bench.micro_batch;
    const Philox rng(m.seed, kPurpose, kLayer, m.moment());
    const auto xs = test::to_doubles(x), rs = test::to_doubles(r);
    std::vector<double> want;
    for (size_t i = 0; i < xs.size(); ++i) {
      want.push_back(rs[i] + (rng.uniform(i) >= 0.25f ? xs[i] / 0.75 : 0.0));
    }
    test::expect_close(y.value(), want, 2, 2.0, to_string(dtype));
  }
}

TEST_P(DropoutAdd, EqualsItsDefinitionToTheBit) {
  const auto run = [&](DType dtype, bool fused) {
    OpBench bench;
    Tape& tape = bench.tape();
    const Var x = tape.variable(bench.tensor("x", dtype, {GetParam()}));
    const Var r = tape.variable(bench.tensor("r", dtype, {GetParam()}));
    const Var y = fused ? ops::dropout_add(tape, x, r, 0.3, kPurpose, kLayer)
                        : ops::add(tape, r, ops::dropout(tape, x, 0.3, kPurpose, kLayer));
    tape.backward(y, bench.tensor("dy", dtype, {GetParam()}));
    return test::concatenate({y.value(), tape.grad(x), tape.grad(r)});
  };
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    EXPECT_EQ(run(dtype, true), run(dtype, false)) << to_string(dtype);
  }
}

TEST_P(DropoutAdd, GradientsEqualFiniteDifferences) {
  if (GetParam() > 200) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  const std::vector<Tensor> inputs = {bench.tensor("x", DType::f64, {GetParam()}),
                                      bench.tensor("r", DType::f64, {GetParam()})};
  test::expect_gradients(bench, inputs, {}, [](Tape& tape, const std::vector<Var>& v) {
    const Var once = ops::dropout_add(tape, v[0], v[1], 0.4, kPurpose, kLayer);
    return ops::dropout_add(tape, once, once, 0.1, kPurpose, kLayer + 1);
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, DropoutAdd, testing::Values(0, 1, 3, 63, 65, 16385));

TEST(DropoutAddIdentity, RateZeroAndEvaluationAdd) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Tensor x = bench.tensor("x", DType::f32, {8}), r = bench.tensor("r", DType::f32, {8});
  const auto want = test::to_doubles(ops::add(tape, tape.constant(x), tape.constant(r)).value());
  const auto got = [&](double rate) {
    return test::to_doubles(
        ops::dropout_add(tape, tape.constant(x), tape.constant(r), rate, kPurpose, 0).value());
  };
  EXPECT_EQ(got(0.0), want);
  EXPECT_NE(got(0.5), want);
  tape.begin({.training = false});
  EXPECT_EQ(got(0.5), want);
}

TEST(DropoutAddMisuse, RatesShapesAndDtypesAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Var x = tape.constant(bench.tensor("x", DType::f32, {2}));
  const Var longer = tape.constant(bench.tensor("x", DType::f32, {3}));
  const Var narrow = tape.constant(bench.tensor("x", DType::bf16, {2}));
  EXPECT_THROW(ops::dropout_add(tape, x, x, 1.0, kPurpose, 0), Error);
  EXPECT_THROW(ops::dropout_add(tape, x, longer, 0.1, kPurpose, 0), Error);
  EXPECT_THROW(ops::dropout_add(tape, x, narrow, 0.1, kPurpose, 0), Error);
}

}  // namespace
}  // namespace ziggurat
