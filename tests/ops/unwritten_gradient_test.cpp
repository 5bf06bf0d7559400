// Gradients whose memory holds anything until the first product of a step writes them (Param::unwritten).
#include <limits>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/op_test.h"
#include <ziggurat/nn/param_store.h>
#include <ziggurat/ops/add.h>
#include <ziggurat/ops/cross_entropy.h>
#include <ziggurat/ops/embedding.h>
#include <ziggurat/ops/grouped_linear.h>
#include <ziggurat/ops/linear.h>

namespace ziggurat {
namespace {

using test::OpBench;

void fill_with_nan(const Tensor& t) {
  visit_float_dtype(t.dtype(), [&]<class T>() {
    std::fill_n(t.data<T>(), t.numel(), T(std::numeric_limits<float>::quiet_NaN()));
  });
}

// The weight's gradient after run(bench, weight), which calls backward by itself.
template <class Run>
std::vector<double> gradient(DType dtype, Shape shape, bool unwritten, const Run& run) {
  OpBench bench;
  Param& w = bench.param("w", dtype, shape, 0.3);
  bool flag = unwritten;
  if (unwritten) {
    w.unwritten = &flag;
    fill_with_nan(w.grad);
  }
  run(bench, w);
  EXPECT_FALSE(flag) << "is written now";
  return test::to_doubles(w.grad);
}

template <class Run>
void expect_same_as_from_zeros(Shape shape, const Run& run) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    EXPECT_EQ(gradient(dtype, shape, true, run), gradient(dtype, shape, false, run)) << to_string(dtype);
  }
}

std::vector<int32_t> targets(int64_t n) {
  std::vector<int32_t> t(static_cast<size_t>(n));
  std::iota(t.begin(), t.end(), 3);
  return t;
}

TEST(UnwrittenGradient, LinearWritesThenAdds) {
  expect_same_as_from_zeros({24, 40}, [](OpBench& bench, Param& w) {
    Tape& tape = bench.tape();
    const Var a = tape.variable(bench.tensor("a", w.value.dtype(), {33, 40}));
    const Var b = tape.variable(bench.tensor("b", w.value.dtype(), {33, 40}));
    const Var y = ops::add(tape, ops::linear(tape, a, w), ops::linear(tape, b, w));
    tape.backward(y, bench.tensor("dy", y.dtype(), y.shape()));
  });
}

// Expert 1 has no rows, 0 and 3 several groups, 3 more than a unit.
TEST(UnwrittenGradient, GroupedLinearWritesEveryExpert) {
  expect_same_as_from_zeros({4, 24, 40}, [](OpBench& bench, Param& w) {
    const Tensor offsets = bench.ints(test::offsets_of({10, 10, 0, 0, 0, 5, 280, 10}));  // of 2 sources
    Tape& tape = bench.tape();
    const Var x = tape.variable(bench.tensor("x", w.value.dtype(), {315, 40}));
    const Var y = ops::grouped_linear(tape, x, offsets, w);
    tape.backward(y, bench.tensor("dy", y.dtype(), y.shape()));
  });
}

// 1,030 rows are three chunks; 5 rows of the weight are padding. The table's own rows come after: tied
// embeddings.
TEST(UnwrittenGradient, CrossEntropyWritesThePaddingToo) {
  expect_same_as_from_zeros({1045, 8}, [](OpBench& bench, Param& w) {
    const std::vector<int32_t> tokens = targets(1030);
    Tape& tape = bench.tape();
    const Var x = ops::embedding(tape, tokens.data(), 1030, 1030, w);
    ops::LossArgs args;
    args.vocab_size = 1040;
    ops::cross_entropy(tape, x, w, tokens.data(), args);
    tape.backward();
  });
}

TEST(UnwrittenGradient, EmbeddingStartsFromZeros) {
  expect_same_as_from_zeros({50, 8}, [](OpBench& bench, Param& w) {
    const std::vector<int32_t> tokens = targets(20);
    Tape& tape = bench.tape();
    const Var y = ops::embedding(tape, tokens.data(), 20, 20, w);
    tape.backward(y, bench.tensor("dy", y.dtype(), y.shape()));
  });
}

// A weight that no product reached in a step, like that of an unused layer.
TEST(UnwrittenGradient, AStoreSettlesWhatNobodyWrote) {
  Stream stream;
  nn::ParamStore store({});
  Param& w = store.add({.name = "w", .global_shape = {4, 8}, .init = {}, .product = true});
  Param& norm = store.add({.name = "norm", .global_shape = {8}, .init = {}, .matrix = false});
  store.finalize();
  for (const Param* p : {&w, &norm}) fill_with_nan(p->grad);
  store.zero_gradients(stream);
  EXPECT_EQ(test::largest(test::to_doubles(norm.grad)), 0.0);
  store.settle_gradients(stream);
  EXPECT_EQ(test::to_doubles(w.grad), std::vector<double>(32, 0.0));
  EXPECT_TRUE(w.must_add());
}

}  // namespace
}  // namespace ziggurat
