// Rows that ranks share: what each gets, and that gradients are those of the whole.
#include <cmath>
#include <span>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/support/op_test.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/ops/add.h>
#include <ziggurat/ops/linear.h>
#include <ziggurat/ops/router.h>
#include <ziggurat/ops/shard_rows.h>

namespace ziggurat {
namespace {

using test::OpBench;
using test::to_doubles;

constexpr int64_t kRows = 3, kCols = 4;  // of a rank

Tensor rows_of_rank(OpBench& bench, int rank, DType dtype = DType::f64) {
  return bench.tensor(fmt::format("x{}", rank), dtype, {kRows, kCols});
}

std::vector<double> of_all(OpBench& bench, int ranks) {
  std::vector<double> all;
  for (int r = 0; r < ranks; ++r) {
    const std::vector<double> some = to_doubles(rows_of_rank(bench, r));
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

TEST(ShardRows, GatheredRowsAreThoseOfAllRanks) {
  for (const int ranks : {1, 2, 4}) {
    run_on_threads(ranks, [&](Communicator& world) {
      for (const ops::Use use : {ops::Use::apart, ops::Use::alike}) {
        OpBench bench;
        Tape& tape = bench.tape();
        const Var x = tape.variable(rows_of_rank(bench, world.rank()));
        const Var y = ops::gather_rows(tape, x, world, use);
        test::expect_close(y.value(), of_all(bench, ranks));
        // Rank r hands in r + 1 times the same gradient: summed, or each rank's own.
        const Tensor dy = bench.zeros(DType::f64, {ranks * kRows, kCols});
        for (int64_t i = 0; i < dy.numel(); ++i) {
          dy.data<double>()[i] = static_cast<double>((world.rank() + 1) * (i + 1));
        }
        tape.backward(y, dy);
        std::vector<double> want;
        const int factor = use == ops::Use::apart ? ranks * (ranks + 1) / 2 : world.rank() + 1;
        for (int64_t i = 0; i < kRows * kCols; ++i) {
          want.push_back(static_cast<double>(factor * (world.rank() * kRows * kCols + i + 1)));
        }
        test::expect_close(tape.grad(x), want);
      }
    });
  }
}

// bf16 too, whose sums are taken in f32: of 1 and many small ones nothing gets lost.
TEST(ShardRows, SumsAreSharedAndRoundedOnce) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    run_on_threads(4, [&](Communicator& world) {
      OpBench bench;
      Tape& tape = bench.tape();
      const Tensor mine = bench.zeros(dtype, {4 * kRows, kCols});
      const double value = world.rank() == 0 ? 1 : 0x1p-9;  // half of what bf16 has beside 1
      visit_float_dtype(dtype, [&]<class T>() {
        for (int64_t i = 0; i < mine.numel(); ++i) mine.data<T>()[i] = T(static_cast<float>(value));
      });
      const Var x = tape.variable(mine);
      const Var y = ops::sum_rows(tape, x, world);
      const double sum = 1 + 3 * 0x1p-9, want = dtype == DType::bf16 ? 1 + 0x1p-7 : sum;
      EXPECT_EQ(to_doubles(y.value()), std::vector<double>(kRows * kCols, want));
      const Tensor dy = bench.tensor("dy" + std::to_string(world.rank()), dtype, {kRows, kCols});
      tape.backward(ops::add(tape, y, y), dy);  // twice
      std::vector<double> all;
      for (int r = 0; r < 4; ++r) {
        for (const double d : to_doubles(bench.tensor("dy" + std::to_string(r), dtype, {kRows, kCols}))) {
          all.push_back(2 * d);
        }
      }
      EXPECT_EQ(to_doubles(tape.grad(x)), all);
    });
  }
}

// Rank r of three has 2 r rows: the first none.
TEST(ShardRows, UnevenRowsAreGatheredAndSummed) {
  constexpr int kRanks = 3, kAll = 6;
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    run_on_threads(kRanks, [&](Communicator& world) {
      OpBench bench;
      Tape& tape = bench.tape();
      auto* const counts = tape.save_array<int64_t>(kRanks);
      for (int r = 0; r < kRanks; ++r) counts[r] = 2 * r;
      const std::span<const int64_t> rows(counts, kRanks);
      const int64_t first = world.rank() == 2 ? 2 : 0, n = counts[world.rank()];
      const Tensor whole = bench.tensor("x", dtype, {kAll, kCols});
      const Var x = tape.variable(whole.rows(first, first + n));
      const Var y = ops::gather_uneven_rows(tape, x, world, rows);
      EXPECT_EQ(to_doubles(y.value()), to_doubles(whole));

      // Each rank makes something else of all of them, which adds up: 1 + 1/2 + 1/4 times.
      const Tensor part = bench.zeros(dtype, {kAll, kCols});
      const auto scaled = [&](double by, const Tensor& from, const Tensor& to) {
        visit_float_dtype(dtype, [&]<class T>() {
          for (int64_t i = 0; i < to.numel(); ++i) {
            to.data<T>()[i] = T(static_cast<Accum<T>>(by * static_cast<double>(from.data<T>()[i])));
          }
        });
      };
      scaled(std::ldexp(1.0, -world.rank()), whole, part);
      const Var z = ops::sum_uneven_rows(tape, tape.variable(part), world, rows);
      ASSERT_EQ(z.shape(), (Shape{n, kCols}));
      const Tensor want = bench.zeros(dtype, {n, kCols});
      visit_float_dtype(dtype, [&]<class T>() {
        for (int64_t i = 0; i < want.numel(); ++i) {
          Accum<T> sum = 0;
          for (int r = 0; r < kRanks; ++r) {
            const auto value = static_cast<Accum<T>>(whole.data<T>()[first * kCols + i]);
            sum += static_cast<Accum<T>>(T(value * static_cast<Accum<T>>(std::ldexp(1.0, -r))));
          }
          want.data<T>()[i] = T(sum);
        }
      });
      EXPECT_EQ(to_doubles(z.value()), to_doubles(want));

      // The gradient of the rows is the sum of what ranks hand in for their copies; that of the sum is its
      // own for each of its terms. Twice: both are added up.
      const Tensor dy = bench.zeros(dtype, {kAll, kCols});
      scaled(std::ldexp(1.0, -world.rank()), whole, dy);
      tape.backward(ops::add(tape, y, y), dy);
      const Tensor twice = bench.zeros(dtype, {n, kCols});
      scaled(2, want, twice);
      test::expect_close(tape.grad(x), to_doubles(twice));
    });
  }
}

TEST(ShardRows, SomeRowsAndBiasesHaveTheRightGradients) {
  OpBench bench;
  Param& bias = bench.param("bias", DType::f64, {kCols});
  const Tensor x = bench.tensor("x", DType::f64, {5, kCols});
  test::expect_gradients(bench, {x}, {&bias}, [&](Tape& tape, const std::vector<Var>& v) {
    const Var some = ops::some_rows(tape, v[0], 1, kRows);
    return ops::add(tape, ops::add_bias(tape, some, bias), ops::some_rows(tape, v[0], 2, kRows));
  });
  Tape& tape = bench.tape();
  tape.begin(bench.micro_batch);
  const Var y = ops::add_bias(tape, ops::some_rows(tape, tape.constant(x), 1, kRows), bias);
  std::vector<double> want;
  const std::vector<double> all = to_doubles(x), b = to_doubles(bias.value);
  for (size_t i = 0; i < static_cast<size_t>(kRows * kCols); ++i) {
    want.push_back(all[static_cast<size_t>(kCols) + i] + b[i % static_cast<size_t>(kCols)]);
  }
  test::expect_close(y.value(), want);
}

// Each rank's rows are those of all that are its tokens': by expert, and in their order.
TEST(ShardRows, OwnTokensAreTheRoutingCutByTokens) {
  OpBench bench;
  Tape& tape = bench.tape();
  constexpr int64_t kTokens = 12, kExperts = 4, kTopK = 2, kShare = 4;
  tape.begin(bench.micro_batch);
  ops::RouterArgs args;
  args.top_k = kTopK, args.min_capacity = 1, args.capacity_factor = 0.7;  // drops some
  const Var logits = tape.variable(bench.tensor("logits", DType::f64, {kTokens, kExperts}));
  const ops::Routing all = ops::route(tape, logits, args);
  ASSERT_LT(all.rows, kTokens * kTopK);
  const auto row = [](const Tensor& table, int64_t i) { return int64_t{table.data<int32_t>()[i]}; };
  int64_t rows = 0;
  for (int64_t first = 0; first < kTokens; first += kShare) {
    const ops::Routing own = ops::own_tokens(tape, all, first, kShare);
    EXPECT_EQ(own.tokens, kShare);
    for (int64_t e = 0; e < kExperts; ++e) {
      EXPECT_EQ(row(own.counts, e), row(own.offsets, e + 1) - row(own.offsets, e));
      std::vector<int64_t> tokens, want;
      for (int64_t r = row(all.offsets, e); r < row(all.offsets, e + 1); ++r) {
        const int64_t token = row(all.token_of_row, r);
        if (token >= first && token < first + kShare) want.push_back(token);
      }
      for (int64_t r = row(own.offsets, e); r < row(own.offsets, e + 1); ++r) {
        const int64_t token = row(own.token_of_row, r), choice = row(own.choice_of_row, r);
        EXPECT_EQ(row(own.row_of_choice, token * kTopK + choice), r);
        EXPECT_EQ(row(all.expert, (first + token) * kTopK + choice), e);
        tokens.push_back(first + token);
      }
      EXPECT_EQ(tokens, want) << "expert " << e;
      rows += std::ssize(tokens);
    }
    for (int64_t i = 0; i < kShare * kTopK; ++i) {
      EXPECT_EQ(row(own.row_of_choice, i) < 0, row(all.row_of_choice, first * kTopK + i) < 0);
      EXPECT_EQ(own.weights.value().data<double>()[i], all.weights.value().data<double>()[first * kTopK + i]);
    }
  }
  EXPECT_EQ(rows, all.rows);
}

}  // namespace
}  // namespace ziggurat
