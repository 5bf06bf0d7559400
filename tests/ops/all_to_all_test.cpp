#include <vector>

#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/ops/add.h>
#include <ziggurat/ops/all_to_all.h>
#include <ziggurat/ops/linear.h>

namespace ziggurat {
namespace {

using test::OpBench;

// Rows that `from` sends to `to`: uneven, sometimes none, and rank 1 never sends anything.
int64_t rows_between(int from, int to) { return from == 1 ? 0 : (2 * from + 3 * to) % 4; }

// A row says where it comes from, where it goes and which one it is.
double tag(int from, int to, int64_t row) { return 100.0 * from + 10.0 * to + static_cast<double>(row); }

struct Rows {
  std::vector<int64_t> send, receive;
  Tensor sent, expected;  // [rows, 2] tags and twice the tags
};

Rows make_rows(OpBench& bench, const Communicator& world, DType dtype) {
  Rows rows;
  std::vector<double> out, in;
  for (int r = 0; r < world.size(); ++r) {
    rows.send.push_back(rows_between(world.rank(), r));
    rows.receive.push_back(rows_between(r, world.rank()));
    for (int64_t i = 0; i < rows.send.back(); ++i) out.push_back(tag(world.rank(), r, i));
    for (int64_t i = 0; i < rows.receive.back(); ++i) in.push_back(tag(r, world.rank(), i));
  }
  const auto fill = [&](const std::vector<double>& tags) {
    const Tensor t = bench.zeros(dtype, {static_cast<int64_t>(tags.size()), 2});
    for (size_t i = 0; i < 2 * tags.size(); ++i) {
      const double value = tags[i / 2] * static_cast<double>(1 + i % 2);
      if (dtype == DType::f64) t.data<double>()[i] = value;
      if (dtype == DType::f32) t.data<float>()[i] = static_cast<float>(value);
    }
    return t;
  };
  rows.sent = fill(out), rows.expected = fill(in);
  return rows;
}

TEST(AllToAllRows, RowsArriveAndGradientsReturn) {
  for (const int ranks : {1, 2, 4}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      run_on_threads(ranks, [&](Communicator& world) {
        OpBench bench;
        Tape& tape = bench.tape();
        const Rows rows = make_rows(bench, world, dtype);
        const Var x = tape.variable(rows.sent);
        const Var y = ops::all_to_all_rows(tape, x, world, rows.send, rows.receive);
        EXPECT_EQ(test::to_doubles(y.value()), test::to_doubles(rows.expected)) << ranks << " ranks";
        tape.backward(y, rows.expected);
        EXPECT_EQ(test::to_doubles(tape.grad(x)), test::to_doubles(rows.sent)) << ranks << " ranks";
      });
    }
  }
}

// In two parts, with another product of x recorded between them.
TEST(AllToAllRows, OthersMayBeRecordedBetweenTheTwoParts) {
  for (const int ranks : {2, 4}) {
    run_on_threads(ranks, [&](Communicator& world) {
      std::vector<double> results[2];
      for (const bool in_parts : {false, true}) {
        OpBench bench;
        Tape& tape = bench.tape();
        const Rows rows = make_rows(bench, world, DType::f64);
        const Param& w = bench.param("w", DType::f64, {2, 2});
        Work under_way;
        const Var x = tape.variable(rows.sent), leaving = ops::add(tape, x, x);
        Var arrived, beside;
        if (in_parts) {
          const Var arriving =
              ops::begin_all_to_all_rows(tape, leaving, world, rows.send, rows.receive, under_way);
          beside = ops::linear(tape, x, w);
          arrived =
              ops::end_all_to_all_rows(tape, leaving, arriving, world, rows.send, rows.receive, under_way);
        } else {
          arrived = ops::all_to_all_rows(tape, leaving, world, rows.send, rows.receive);
          beside = ops::linear(tape, x, w);
        }
        const Var back = ops::all_to_all_rows(tape, arrived, world, rows.receive, rows.send);
        const Var y = ops::add(tape, back, beside);
        tape.backward(y, rows.sent);
        for (const Tensor& t : {y.value(), tape.grad(x), w.grad}) {
          for (const double value : test::to_doubles(t)) results[in_parts].push_back(value);
        }
      }
      EXPECT_EQ(results[1], results[0]);
    });
  }
}

// Every rank enters both exchanges, also one that has neither rows to send nor rows to receive; and a
// gradient that another consumer has already begun is added to.
TEST(AllToAllRows, RanksWithoutRowsTakePart) {
  run_on_threads(4, [](Communicator& world) {
    OpBench bench;
    Tape& tape = bench.tape();
    const Param& w = bench.param("w", DType::f64, {3, 2});
    const int64_t n = world.rank() == 2 ? 0 : 1;  // rank 2 has nothing at all
    std::vector<int64_t> rows = {n, n, 0, n};
    if (n == 0) rows = {0, 0, 0, 0};
    const int64_t total = 3 * n;
    const Tensor value = bench.tensor("x", DType::f64, {total, 2});
    const Var x = tape.variable(value);
    const Var there = ops::all_to_all_rows(tape, x, world, rows, rows);
    const Var worked = ops::linear(tape, there, w);
    const Var back = ops::all_to_all_rows(tape, worked, world, rows, rows);
    const Var again = ops::linear(tape, x, w);
    const Tensor dy = bench.tensor("dy", DType::f64, {total, 3});
    tape.backward(ops::add(tape, back, again), dy);

    // Exchanged there and back, a row meets the same weight as one that stayed: twice the gradient.
    OpBench alone;
    const Param& same = alone.param("w", DType::f64, {3, 2});
    const Var x1 = alone.tape().variable(value);
    alone.tape().backward(ops::linear(alone.tape(), x1, same), dy);
    std::vector<double> want = test::to_doubles(alone.tape().grad(x1));
    for (double& g : want) g *= 2;
    test::expect_close(tape.grad(x), want, 4, 4, "dx");
  });
}

TEST(AllToAllRowsMisuse, CountsMustMatchRanksAndRows) {
  run_on_threads(2, [](Communicator& world) {
    OpBench bench;
    const Var x = bench.tape().constant(bench.tensor("x", DType::f32, {3, 2}));
    const std::vector<int64_t> one = {3}, two = {1, 2}, wrong = {1, 1};
    EXPECT_THROW(ops::all_to_all_rows(bench.tape(), x, world, one, two), Error);
    EXPECT_THROW(ops::all_to_all_rows(bench.tape(), x, world, two, one), Error);
    EXPECT_THROW(ops::all_to_all_rows(bench.tape(), x, world, wrong, two), Error);
  });
}

}  // namespace
}  // namespace ziggurat
