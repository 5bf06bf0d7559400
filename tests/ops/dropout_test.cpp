#include <cmath>

#include "tests/support/op_test.h"
#include <ziggurat/ops/dropout.h>

namespace ziggurat {
namespace {

using test::OpBench;
constexpr Purpose kPurpose = Purpose::hidden_dropout;
constexpr int64_t kLayer = 4;

class Dropout : public testing::TestWithParam<int64_t> {};  // elements

TEST_P(Dropout, ForwardEqualsNaiveReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    const Tensor x = bench.tensor("x", dtype, {GetParam()});
    const Var y = ops::dropout(bench.tape(), bench.tape().constant(x), 0.25, kPurpose, kLayer);
    const MicroBatch& m = bench.micro_batch;
    const Philox rng(m.seed, kPurpose, kLayer, m.moment());
    const auto xs = test::to_doubles(x);
    std::vector<double> want;
    for (size_t i = 0; i < xs.size(); ++i) want.push_back(rng.uniform(i) >= 0.25f ? xs[i] / 0.75 : 0.0);
    test::expect_close(y.value(), want, 1, 1.0, to_string(dtype));
  }
}

TEST_P(Dropout, GradientsEqualFiniteDifferences) {
  if (GetParam() > 200) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  test::expect_gradients(bench, {bench.tensor("x", DType::f64, {GetParam()})}, {},
                         [](Tape& tape, const std::vector<Var>& v) {
                           const Var once = ops::dropout(tape, v[0], 0.4, kPurpose, kLayer);
                           return ops::dropout(tape, once, 0.1, kPurpose, kLayer + 1);
                         });
}

// One element, and around a tile of 64 and a thread's block of 16384.
INSTANTIATE_TEST_SUITE_P(Sizes, Dropout, testing::Values(0, 1, 3, 63, 64, 65, 16383, 16384, 50001));

TEST(DropoutStream, LayersMomentsAndPurposesDrawTheirOwnMasks) {
  OpBench bench;
  const Tensor ones = bench.tensor("ones", DType::f32, {4096}, 0.0, 1.0);
  const auto mask = [&](int64_t step, int64_t index, Purpose purpose, int64_t layer) {
    bench.tape().begin({.seed = 1, .step = step, .index = index});
    return test::to_doubles(
        ops::dropout(bench.tape(), bench.tape().constant(ones), 0.5, purpose, layer).value());
  };
  const auto base = mask(1, 0, kPurpose, 0);
  EXPECT_EQ(base, mask(1, 0, kPurpose, 0));
  EXPECT_NE(base, mask(2, 0, kPurpose, 0));
  EXPECT_NE(base, mask(1, 1, kPurpose, 0));
  EXPECT_NE(base, mask(1, 0, Purpose::embedding_dropout, 0));
  EXPECT_NE(base, mask(1, 0, kPurpose, 1));
  // Each element is 0 or 2 with mean 1 and variance 1: five standard errors.
  double sum = 0;
  for (const double v : base) sum += v;
  EXPECT_NEAR(sum / 4096, 1.0, 5 / std::sqrt(4096.0));
}

TEST(DropoutIdentity, RateZeroAndEvaluationReturnTheInput) {
  OpBench bench;
  Tape& tape = bench.tape();
  const Tensor x = bench.tensor("x", DType::f32, {8});
  EXPECT_EQ(ops::dropout(tape, tape.constant(x), 0.0, kPurpose, 0).value().raw(), x.raw());
  tape.begin({.training = false});
  EXPECT_EQ(ops::dropout(tape, tape.constant(x), 0.5, kPurpose, 0).value().raw(), x.raw());
}

TEST(DropoutBackward, BitsDoNotDependOnTheNumberOfThreads) {
  test::expect_same_on_any_thread_count([] {
    OpBench bench;
    const Var x = bench.tape().variable(bench.tensor("x", DType::f32, {40000}));
    const Var y = ops::dropout(bench.tape(), x, 0.3, kPurpose, 0);
    bench.tape().backward(y, bench.tensor("dy", DType::f32, {40000}));
    return test::concatenate({y.value(), bench.tape().grad(x)});
  });
}

TEST(DropoutMisuse, RatesOutsideZeroToOneAreNamed) {
  OpBench bench;
  const Var x = bench.tape().constant(bench.tensor("x", DType::f32, {2}));
  for (const double rate : {-0.1, 1.0, std::nan("")}) {
    EXPECT_THROW(ops::dropout(bench.tape(), x, rate, kPurpose, 0), Error);
  }
}

}  // namespace
}  // namespace ziggurat
