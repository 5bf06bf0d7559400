#include <vector>

#include "tests/support/op_test.h"
#include <ziggurat/ops/choose_rows.h>

namespace ziggurat {
namespace {

using test::OpBench;

MicroBatch inference() { return {.training = false}; }

class ChooseRows : public testing::TestWithParam<std::vector<int32_t>> {};

TEST_P(ChooseRows, AreThoseRowsToTheBit) {
  constexpr int64_t kRows = 40, kWidth = 13;
  const std::vector<int32_t>& rows = GetParam();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    bench.tape().begin(inference());
    const Tensor x = bench.tensor("x", dtype, {kRows, kWidth});
    const Var y = ops::choose_rows(bench.tape(), bench.tape().constant(x), rows);
    EXPECT_EQ(y.shape(), (Shape{static_cast<int64_t>(rows.size()), kWidth}));
    const std::vector<double> all = test::to_doubles(x);
    std::vector<double> want;
    for (const int32_t row : rows) {
      want.insert(want.end(), all.begin() + row * kWidth, all.begin() + (row + 1) * kWidth);
    }
    test::expect_close(y.value(), want, 1, 1, to_string(dtype));
    EXPECT_EQ(test::to_doubles(y.value()), want);
  }
}

// None, the last one, some twice and in any order, more than a thread's block of 16.
INSTANTIATE_TEST_SUITE_P(Rows, ChooseRows,
                         testing::Values(std::vector<int32_t>{}, std::vector<int32_t>{39},
                                         std::vector<int32_t>{5, 0, 5, 39},
                                         std::vector<int32_t>{1, 2, 3, 5, 8,  13, 21, 34, 38, 0,
                                                              4, 6, 7, 9, 10, 11, 12, 14, 15, 16}));

TEST(ChooseRowsMisuse, RowsAndShapesAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  tape.begin(inference());
  const Var x = tape.constant(bench.tensor("x", DType::f32, {3, 2}));
  const std::vector<int32_t> last = {2}, beyond = {0, 3}, before = {-1};
  EXPECT_NO_THROW(ops::choose_rows(tape, x, last));
  EXPECT_THROW(ops::choose_rows(tape, x, beyond), Error);
  EXPECT_THROW(ops::choose_rows(tape, x, before), Error);
  const Var flat = tape.constant(bench.tensor("flat", DType::f32, {3}));
  EXPECT_THROW(ops::choose_rows(tape, flat, last), Error);
}

TEST(ChooseRowsMisuse, RefusesTraining) {
  OpBench bench;
  const Var x = bench.tape().constant(bench.tensor("x", DType::f32, {3, 2}));
  const std::vector<int32_t> last = {2};
  EXPECT_THROW(ops::choose_rows(bench.tape(), x, last), Error);
}

}  // namespace
}  // namespace ziggurat
