#include "tests/support/op_test.h"
#include <ziggurat/ops/embedding.h>

namespace ziggurat {
namespace {

using test::OpBench;

struct EmbeddingCase {
  int64_t rows, sequence_length, cols;
  bool positions;
  bool any_order = false;  // positions are given, in an order of their own
};
void PrintTo(const EmbeddingCase& c, std::ostream* os) {
  *os << c.rows << " rows of sequences of " << c.sequence_length << ", " << c.cols << " columns"
      << (c.positions ? ", positions" : "") << (c.any_order ? " in any order" : "");
}
constexpr int64_t kVocabulary = 5;

// 0, 1, 3, 0, 1, ...: with repeats, and some ids unused.
std::vector<int32_t> tokens_for(int64_t rows) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < rows; ++i) tokens.push_back(static_cast<int32_t>(i * i % 3 + i % 3));
  return tokens;
}

// What row i's position is; rows' positions repeat, and some are unused.
std::vector<int32_t> positions_for(const EmbeddingCase& c) {
  std::vector<int32_t> positions;
  for (int64_t i = 0; i < c.rows; ++i) {
    positions.push_back(static_cast<int32_t>(c.any_order ? (3 * i * i + 1) % (c.sequence_length + 1)
                                                         : i % c.sequence_length));
  }
  return positions;
}

class Embedding : public testing::TestWithParam<EmbeddingCase> {};

// A table of 6 rows in parts of 2: each has its rows, and zeros for the others', and so has their gradient.
TEST(EmbeddingOfPart, PartsAddUpToTheWhole) {
  constexpr int64_t kCols = 3, kRows = 2, kParts = 3, kTokens = 9;
  const auto tokens = tokens_for(kTokens);
  OpBench whole;
  const Param& table = whole.param("table", DType::f64, {kParts * kRows, kCols});
  const Tensor dy = whole.tensor("dy", DType::f64, {kTokens, kCols});
  const Var y = ops::embedding(whole.tape(), tokens.data(), kTokens, kTokens, table);
  whole.tape().backward(y, dy);
  std::vector<double> sum(static_cast<size_t>(kTokens * kCols)), gradient;
  for (int64_t part = 0; part < kParts; ++part) {
    OpBench bench;
    const Param& rows = bench.param("part", DType::f64, {kRows, kCols});
    copy(table.value.rows(part * kRows, (part + 1) * kRows), rows.value);
    const Var some = ops::embedding_of_part(bench.tape(), tokens.data(), kTokens, kTokens, rows, part * kRows,
                                            kParts * kRows);
    bench.tape().backward(some, dy);
    const std::vector<double> here = test::to_doubles(some.value()), its = test::to_doubles(rows.grad);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += here[i];
    gradient.insert(gradient.end(), its.begin(), its.end());
    EXPECT_THROW(ops::embedding_of_part(bench.tape(), tokens.data(), kTokens, kTokens, rows, 0, 2), Error)
        << "token 3 of a vocabulary of 2";
  }
  EXPECT_EQ(sum, test::to_doubles(y.value()));
  EXPECT_EQ(gradient, test::to_doubles(table.grad));
}

TEST_P(Embedding, ForwardEqualsNaiveReference) {
  const EmbeddingCase c = GetParam();
  const auto tokens = tokens_for(c.rows), places = positions_for(c);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    const Param& table = bench.param("table", dtype, {kVocabulary, c.cols});
    const Param& positions = bench.param("positions", dtype, {c.sequence_length + 1, c.cols});
    const Var y = ops::embedding(bench.tape(), tokens.data(), c.rows, c.sequence_length, table,
                                 c.positions ? &positions : nullptr, c.any_order ? places.data() : nullptr);
    const auto t = test::to_doubles(table.value), p = test::to_doubles(positions.value);
    std::vector<double> want;
    for (int64_t i = 0; i < c.rows; ++i) {
      for (int64_t j = 0; j < c.cols; ++j) {
        const auto token = static_cast<size_t>(tokens[static_cast<size_t>(i)] * c.cols + j);
        const auto position = static_cast<size_t>(places[static_cast<size_t>(i)] * c.cols + j);
        want.push_back(t[token] + (c.positions ? p[position] : 0.0));
      }
    }
    test::expect_close(y.value(), want, 1, 1.0, to_string(dtype));
  }
}

TEST_P(Embedding, GradientsEqualFiniteDifferences) {
  const EmbeddingCase c = GetParam();
  if (c.rows * c.cols > 200) GTEST_SKIP() << "forward-only size";
  const auto tokens = tokens_for(c.rows), places = positions_for(c);
  OpBench bench;
  Param& table = bench.param("table", DType::f64, {kVocabulary, c.cols});
  Param& positions = bench.param("positions", DType::f64, {c.sequence_length + 1, c.cols});
  test::expect_gradients(bench, {}, {&table, &positions}, [&](Tape& tape, const std::vector<Var>&) {
    return ops::embedding(tape, tokens.data(), c.rows, c.sequence_length, table,
                          c.positions ? &positions : nullptr, c.any_order ? places.data() : nullptr);
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, Embedding,
                         testing::Values(EmbeddingCase{0, 4, 3, true}, EmbeddingCase{1, 1, 1, true},
                                         EmbeddingCase{6, 3, 5, true}, EmbeddingCase{7, 3, 5, true},
                                         EmbeddingCase{9, 9, 2, false}, EmbeddingCase{2, 8, 3, true},
                                         EmbeddingCase{135, 45, 130, true},
                                         EmbeddingCase{7, 3, 5, true, true},
                                         EmbeddingCase{135, 45, 130, true, true}));

TEST(EmbeddingBackward, BitsDoNotDependOnTheNumberOfThreads) {
  test::expect_same_on_any_thread_count([] {
    OpBench bench;
    const auto tokens = tokens_for(200);
    Param& table = bench.param("table", DType::f32, {kVocabulary, 300});
    Param& positions = bench.param("positions", DType::f32, {50, 300});
    const Var y = ops::embedding(bench.tape(), tokens.data(), 200, 50, table, &positions);
    bench.tape().backward(y, bench.tensor("dy", DType::f32, {200, 300}));
    return test::concatenate({y.value(), table.grad, positions.grad});
  });
}

TEST(EmbeddingBackward, FrozenTablesGetNothing) {
  OpBench bench;
  const int32_t token = 1;
  Param table = bench.param("table", DType::f32, {kVocabulary, 2});
  Param& positions = bench.param("positions", DType::f32, {1, 2});
  table.grad = Tensor();
  const Tensor dy = bench.tensor("dy", DType::f32, {1, 2});
  bench.tape().backward(ops::embedding(bench.tape(), &token, 1, 1, table, &positions), dy);
  EXPECT_EQ(test::to_doubles(positions.grad), test::to_doubles(dy));
}

TEST(EmbeddingMisuse, TokensOutsideTheTableAreNamed) {
  OpBench bench;
  const Param& table = bench.param("table", DType::f32, {kVocabulary, 2});
  for (const int32_t bad : {-1, static_cast<int32_t>(kVocabulary)}) {
    const std::vector<int32_t> tokens = {0, 1, 2, 0, bad, 1};
    try {
      ops::embedding(bench.tape(), tokens.data(), 6, 3, table);
      FAIL() << "token id " << bad << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::data);
      const std::string place = fmt::format("token id {} at sequence 1, position 1", bad);
      EXPECT_NE(std::string(error.what()).find(place), std::string::npos) << error.what();
    }
  }
}

TEST(EmbeddingMisuse, ShapesAndLengthsAreNamed) {
  OpBench bench;
  Tape& tape = bench.tape();
  const std::vector<int32_t> tokens = {0, 1};
  const Param& table = bench.param("table", DType::f32, {kVocabulary, 2});
  const Param& flat = bench.param("flat", DType::f32, {kVocabulary});
  const Param& short_one = bench.param("short", DType::f32, {1, 2});
  const Param& narrow = bench.param("narrow", DType::f32, {2, 1});
  const Param& wide = bench.param("wide", DType::f64, {2, 2});
  EXPECT_THROW(ops::embedding(tape, tokens.data(), 2, 2, flat), Error);
  EXPECT_THROW(ops::embedding(tape, tokens.data(), 2, 0, table), Error);
  EXPECT_THROW(ops::embedding(tape, tokens.data(), -1, 2, table), Error);
  EXPECT_THROW(ops::embedding(tape, tokens.data(), 2, 2, table, &short_one), Error);
  EXPECT_THROW(ops::embedding(tape, tokens.data(), 2, 2, table, &narrow), Error);
  EXPECT_THROW(ops::embedding(tape, tokens.data(), 2, 2, table, &wide), Error);
  // Given positions must lie in the table, however long the sequences are.
  const std::vector<int32_t> restarted = {0, 0}, past = {0, 1}, negative = {0, -1};
  EXPECT_NO_THROW(ops::embedding(tape, tokens.data(), 2, 2, table, &short_one, restarted.data()));
  EXPECT_THROW(ops::embedding(tape, tokens.data(), 2, 2, table, &short_one, past.data()), Error);
  EXPECT_THROW(ops::embedding(tape, tokens.data(), 2, 2, table, &short_one, negative.data()), Error);
}

}  // namespace
}  // namespace ziggurat
