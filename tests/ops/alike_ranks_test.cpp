#include <numeric>

#include <gtest/gtest.h>

#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/ops/alike_ranks.h>

namespace ziggurat {
namespace {

using test::OpBench;

MicroBatch inference() { return {.training = false}; }

// Column c of row r on rank k is 64 k + 8 r + c, which bf16 holds.
Tensor numbered(OpBench& bench, DType dtype, int64_t rows, int64_t width, int rank) {
  const Tensor x = bench.tensor("x", dtype, {rows, width});
  visit_float_dtype(dtype, [&]<class T>() {
    for (int64_t i = 0; i < rows * width; ++i) {
      x.data<T>()[i] = T(static_cast<float>(64 * rank + 8 * (i / width) + i % width));
    }
  });
  return x;
}

class AlikeRanks : public testing::TestWithParam<std::tuple<int, DType>> {
 protected:
  int ranks() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }
};

TEST_P(AlikeRanks, GatherColumns) {
  for (const int64_t rows : {0, 1, 5}) {
    run_on_threads(ranks(), [&](Communicator& world) {
      OpBench bench;
      bench.tape().begin(inference());
      const Tensor x = numbered(bench, dtype(), rows, 3, world.rank());
      const Var y = ops::gather_columns(bench.tape(), bench.tape().constant(x), world);
      std::vector<double> want;
      for (int64_t r = 0; r < rows; ++r) {
        for (int k = 0; k < ranks(); ++k) {
          for (int c = 0; c < 3; ++c) want.push_back(64.0 * k + 8.0 * static_cast<double>(r) + c);
        }
      }
      EXPECT_EQ(y.shape(), (Shape{rows, 3 * ranks()}));
      test::expect_close(y.value(), want, 1, 1, "gathered");
    });
  }
}

// Rank k has every ranks-th row, and negative zeros and tiny numbers pass as they are.
TEST_P(AlikeRanks, JoinTakesEachElementFromWhoHasIt) {
  run_on_threads(ranks(), [&](Communicator& world) {
    OpBench bench;
    bench.tape().begin(inference());
    const Tensor x = numbered(bench, dtype(), 6, 4, 0);
    std::vector<double> want = test::to_doubles(x);
    visit_float_dtype(dtype(), [&]<class T>() { x.data<T>()[5] = T(-0.0F), x.data<T>()[6] = T(1e-38F); });
    want = test::to_doubles(x);
    for (int64_t r = 0; r < 6; ++r) {
      if (r % ranks() != world.rank()) fill_zero(x.rows(r, r + 1), bench.tape().stream());
    }
    const Var y = ops::join(bench.tape(), bench.tape().constant(x), world);
    EXPECT_EQ(test::to_doubles(y.value()), want);
    EXPECT_TRUE(std::signbit(test::to_doubles(y.value())[5]));
    test::expect_close(y.value(), want, 1, 1, "joined");
  });
}

TEST_P(AlikeRanks, GatherRowsOfDifferentNumbers) {
  run_on_threads(ranks(), [&](Communicator& world) {
    OpBench bench;
    bench.tape().begin(inference());
    std::vector<int64_t> rows(static_cast<size_t>(ranks()));
    std::iota(rows.begin(), rows.end(), 0);  // none of the first rank
    const Tensor x = numbered(bench, dtype(), world.rank(), 2, world.rank());
    const Var y = ops::gather_rows_v(bench.tape(), bench.tape().constant(x), rows, world);
    std::vector<double> want;
    for (int k = 0; k < ranks(); ++k) {
      for (int i = 0; i < 2 * k; ++i) want.push_back(64 * k + 8 * (i / 2) + i % 2);
    }
    EXPECT_EQ(test::to_doubles(y.value()), want);
  });
}

INSTANTIATE_TEST_SUITE_P(Groups, AlikeRanks,
                         testing::Combine(testing::Values(1, 2, 3, 4),
                                          testing::Values(DType::f32, DType::bf16, DType::f64)));

TEST(AlikeRanksAlone, ScatterRows) {
  OpBench bench;
  bench.tape().begin(inference());
  const Tensor x = numbered(bench, DType::f32, 2, 2, 1);
  int32_t to[] = {3, 1};
  const Var y = ops::scatter_rows(bench.tape(), bench.tape().constant(x), Tensor(to, DType::i32, {2}), 4);
  EXPECT_EQ(test::to_doubles(y.value()), (std::vector<double>{0, 0, 72, 73, 0, 0, 64, 65}));
  EXPECT_THROW(ops::scatter_rows(bench.tape(), bench.tape().constant(x), Tensor(to, DType::i32, {2}), 1),
               Error);
}

TEST(AlikeRanksAlone, RefusesTraining) {
  run_on_threads(2, [](Communicator& world) {
    OpBench bench;
    const Tensor x = numbered(bench, DType::f32, 2, 2, 1);
    EXPECT_THROW(ops::gather_columns(bench.tape(), bench.tape().constant(x), world), Error);
    EXPECT_THROW(ops::join(bench.tape(), bench.tape().constant(x), world), Error);
  });
}

}  // namespace
}  // namespace ziggurat
