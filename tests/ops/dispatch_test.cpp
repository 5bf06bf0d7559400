#include <numeric>

#include <gmock/gmock.h>

#include "tests/support/op_test.h"
#include <ziggurat/kernels/dispatch.h>
#include <ziggurat/ops/dispatch.h>

namespace ziggurat {
namespace {

using ops::Routing;
using test::OpBench;

struct DispatchCase {
  int64_t tokens, experts, top_k, width;
  double capacity_factor;  // 0: dropless
};
void PrintTo(const DispatchCase& c, std::ostream* os) {
  *os << c.tokens << " tokens, " << c.experts << " experts, top-" << c.top_k << ", width " << c.width
      << ", factor " << c.capacity_factor;
}

Routing route(Tape& tape, Var logits, const DispatchCase& c) {
  ops::RouterArgs args;
  args.top_k = c.top_k, args.min_capacity = 1, args.capacity_factor = c.capacity_factor;
  args.drop = c.capacity_factor > 0 ? ops::DropPolicy::position : ops::DropPolicy::none;
  return ops::route(tape, logits, args);
}

class Dispatch : public testing::TestWithParam<DispatchCase> {};

TEST_P(Dispatch, ForwardEqualsNaiveReference) {
  const DispatchCase c = GetParam();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    Tape& tape = bench.tape();
    const Tensor x = bench.tensor("x", dtype, {c.tokens, c.width});
    const Routing r =
        route(tape, tape.variable(bench.tensor("z", accum_dtype(dtype), {c.tokens, c.experts})), c);
    const Var rows = ops::gather_tokens(tape, tape.constant(x), r);
    const Var y = ops::combine(tape, rows, r);
    const auto xs = test::to_doubles(x), w = test::to_doubles(r.weights.value());
    const int32_t* token_of_row = r.token_of_row.data<int32_t>();
    std::vector<double> gathered, combined;
    for (int64_t row = 0; row < r.rows; ++row) {
      for (int64_t i = 0; i < c.width; ++i)
        gathered.push_back(xs[static_cast<size_t>(token_of_row[row] * c.width + i)]);
    }
    for (int64_t s = 0; s < c.tokens; ++s) {
      const double weight =
          std::accumulate(w.begin() + s * c.top_k, w.begin() + (s + 1) * c.top_k, 0.0);  // 0 where dropped
      for (int64_t i = 0; i < c.width; ++i)
        combined.push_back(weight * xs[static_cast<size_t>(s * c.width + i)]);
    }
    test::expect_close(rows.value(), gathered, 1, 1, "gathered");
    test::expect_close(y.value(), combined, c.top_k, 4, "combined");
  }
}

TEST_P(Dispatch, GradientsEqualFiniteDifferences) {
  const DispatchCase c = GetParam();
  if (c.tokens * c.width > 200) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  const Tensor z = bench.tensor("z", DType::f64, {c.tokens, c.experts});
  const Tensor x = bench.tensor("x", DType::f64, {c.tokens, c.width});
  // Through the weights, the rows, and both at once.
  test::expect_gradients(bench, {x, z}, {}, [&](Tape& tape, const std::vector<Var>& v) {
    const Routing r = route(tape, v[1], c);
    return ops::combine(tape, ops::gather_tokens(tape, v[0], r), r);
  });
}

TEST_P(Dispatch, PermutationMovesRowsAndGradients) {
  const DispatchCase c = GetParam();
  if (c.tokens * c.width > 200) GTEST_SKIP() << "forward-only size";
  OpBench bench;
  const Tensor x = bench.tensor("x", DType::f64, {c.tokens, c.width});
  const auto permute = [&](Tape& tape, const std::vector<Var>& v) {
    const Tensor table = tape.save(DType::i32, {c.tokens});
    int32_t* from = table.data<int32_t>();
    for (int64_t i = 0; i < c.tokens; ++i) from[i] = static_cast<int32_t>((i * 2 + 1) % (c.tokens | 1));
    if (c.tokens % 2 == 0) std::iota(from, from + c.tokens, 0);  // 2 i + 1 permutes odd lengths only
    return ops::permute_rows(tape, v[0], table);
  };
  test::expect_gradients(bench, {x}, {}, permute);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Dispatch,
                         testing::Values(DispatchCase{0, 2, 1, 3, 1}, DispatchCase{1, 1, 1, 1, 0},
                                         DispatchCase{7, 3, 2, 5, 0.5}, DispatchCase{7, 3, 3, 5, 0},
                                         DispatchCase{9, 8, 1, 3, 1}, DispatchCase{131, 4, 2, 1030, 0.7}));

// Rows 0 to 8 arrive from two sources: one, none, three for the experts of the first; two, none, three.
TEST(Dispatch, ArrivalsAreOrderedByExpertThenSource) {
  OpBench bench;
  const Tensor arriving = bench.ints({1, 0, 3, 2, 0, 3}).reshape({2, 3});
  for (const bool by_source : {false, true}) {
    const ops::ArrivalOrder order = ops::order_arrivals(bench.tape(), arriving, 9, by_source);
    const auto values = [](const Tensor& t) {
      return std::vector<int32_t>(t.data<int32_t>(), t.data<int32_t>() + t.numel());
    };
    EXPECT_EQ(values(order.arrival_of_row), (std::vector<int32_t>{0, 4, 5, 1, 2, 3, 6, 7, 8}));
    EXPECT_EQ(values(order.row_of_arrival), (std::vector<int32_t>{0, 3, 4, 5, 1, 2, 6, 7, 8}));
    EXPECT_EQ(values(order.offsets),
              by_source ? (std::vector<int32_t>{0, 1, 3, 3, 3, 6, 9}) : (std::vector<int32_t>{0, 3, 3, 9}));
  }
}

// A row that is nobody's is neither read from nor written.
TEST(Dispatch, RowsOfNobodyAreLeftAlone) {
  const float x[] = {1, 2, 3};
  float gathered[] = {-1, -1, -1}, scattered[] = {-1, -1, -1};
  const int32_t table[] = {2, -1, 0};
  Stream stream;
  kernels::gather_rows<Device::cpu>(kernels::GatherRowsArgs<float>{3, 1, x, table, gathered}, stream);
  kernels::scatter_rows<Device::cpu>(kernels::ScatterRowsArgs<float>{3, 1, x, table, false, scattered},
                                     stream);
  EXPECT_THAT(gathered, testing::ElementsAre(3, -1, 1));
  EXPECT_THAT(scattered, testing::ElementsAre(3, -1, 1));
}

TEST(DispatchMisuse, ShapesAndDtypesAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const DispatchCase c{4, 2, 1, 3, 0};
  const Routing r = route(tape, tape.constant(bench.tensor("z", DType::f32, {4, 2})), c);
  const Var short_x = tape.constant(bench.tensor("x", DType::f32, {3, 3}));
  const Var wide_type = tape.constant(bench.tensor("x", DType::f64, {4, 3}));
  EXPECT_THROW(ops::gather_tokens(tape, short_x, r), Error);
  EXPECT_THROW(ops::combine(tape, short_x, r), Error);
  EXPECT_THROW(ops::combine(tape, wide_type, r), Error);
  EXPECT_THROW(ops::permute_rows(tape, tape.constant(bench.tensor("v", DType::f32, {3})), bench.ints({0})),
               Error);
  EXPECT_THROW(ops::permute_rows(tape, short_x, bench.ints({0, 1})), Error);
  EXPECT_THROW(ops::order_arrivals(tape, bench.ints({1, 1}), 2, false), Error);
}

}  // namespace
}  // namespace ziggurat
