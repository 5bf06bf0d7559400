// Rows that extend cached sequences, in any portions, against the definition over whole sequences.
#include <algorithm>
#include <cmath>

#include "tests/support/op_test.h"
#include <ziggurat/ops/cached_attention.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using ops::AttentionShape;
using ops::BlockTables;
using ops::CacheRows;
using ops::LayerCache;
using test::OpBench;

constexpr double kScale = 0.3, kTheta = 50;

struct CachedCase {
  int64_t heads, kv_heads, head_dim;
  std::vector<int64_t> portions;  // rows of each call, of sequence 1
  bool rotary;
  int64_t block = 4, window = 0;
};
void PrintTo(const CachedCase& c, std::ostream* os) {
  *os << c.heads << "/" << c.kv_heads << " heads of " << c.head_dim << (c.rotary ? ", rotary" : "")
      << ", portions";
  for (const int64_t n : c.portions) *os << " " << n;
  *os << ", blocks of " << c.block << ", window " << c.window;
}

int64_t length_of(const CachedCase& c) {
  int64_t length = 0;
  for (const int64_t n : c.portions) length += n;
  return length;
}

// Head `head` of row t, rotated by t if the case says so.
std::vector<double> head_of(const CachedCase& c, const std::vector<double>& qkv, int64_t t, int64_t head,
                            bool rotate) {
  const int64_t d = c.head_dim, width = (c.heads + 2 * c.kv_heads) * d;
  const auto begin = qkv.begin() + t * width + head * d;
  std::vector<double> x(begin, begin + d), y = x;
  for (int64_t j = 0; rotate && c.rotary && j < d / 2; ++j) {
    const double angle = double(t) * std::pow(kTheta, -2.0 * double(j) / double(d));
    const auto low = static_cast<size_t>(j), high = static_cast<size_t>(j + d / 2);
    y[low] = x[low] * std::cos(angle) - x[high] * std::sin(angle);
    y[high] = x[high] * std::cos(angle) + x[low] * std::sin(angle);
  }
  return y;
}

// y [T, H d] by the definition.
std::vector<double> naive(const CachedCase& c, const std::vector<double>& qkv) {
  std::vector<double> y;
  for (int64_t t = 0; t < length_of(c); ++t) {
    for (int64_t h = 0; h < c.heads; ++h) {
      const int64_t kv = h / (c.heads / c.kv_heads);
      const auto q = head_of(c, qkv, t, h, true);
      std::vector<double> sum(q.size(), 0.0);
      double total = 0;
      for (int64_t s = c.window == 0 ? 0 : std::max<int64_t>(0, t + 1 - c.window); s <= t; ++s) {
        const auto k = head_of(c, qkv, s, c.heads + kv, true),
                   v = head_of(c, qkv, s, c.heads + c.kv_heads + kv, false);
        double score = 0;
        for (size_t j = 0; j < q.size(); ++j) score += q[j] * k[j];
        const double p = std::exp(kScale * score);
        total += p;
        for (size_t j = 0; j < q.size(); ++j) sum[j] += p * v[j];
      }
      for (const double x : sum) y.push_back(x / total);
    }
  }
  return y;
}

LayerCache make_cache(OpBench& bench, const CachedCase& c, DType dtype, int64_t blocks) {
  const Shape heads{blocks, c.kv_heads, c.block, c.head_dim};
  return {bench.zeros(dtype, heads), bench.zeros(dtype, heads)};
}

// Tables of sequences that took the blocks of a cache from its end, in turn.
struct Tables {
  std::vector<int32_t> blocks, begin = {0}, dropped;
  Tables(int64_t sequences, int64_t each) {
    for (int64_t s = 0; s < sequences; ++s) {
      for (int64_t b = 0; b < each; ++b)
        blocks.push_back(static_cast<int32_t>((each - b) * sequences - 1 - s));
      begin.push_back(static_cast<int32_t>(blocks.size()));
      dropped.push_back(0);
    }
  }
  // The first block of a sequence is let go.
  void drop(size_t sequence) {
    blocks.erase(blocks.begin() + begin[sequence]);
    for (size_t s = sequence + 1; s < begin.size(); ++s) --begin[s];
    ++dropped[sequence];
  }
  BlockTables view(int64_t block) const {
    return {block, std::ssize(dropped), blocks.data(), begin.data(), dropped.data()};
  }
};

// y of all rows, fed in portions to sequence 1 of 3; blocks that are past the window are let go, and others
// write there.
std::vector<double> in_portions(OpBench& bench, const CachedCase& c, const Tensor& qkv,
                                const std::vector<int64_t>& portions) {
  const int64_t each = length_of(c) / c.block + 1;
  const LayerCache cache = make_cache(bench, c, qkv.dtype(), 3 * each);
  Tables tables(3, each);
  MicroBatch inference = bench.micro_batch;
  inference.training = false;
  std::vector<double> y;
  int64_t done = 0;
  for (const int64_t n : portions) {
    bench.tape().begin(inference);
    const std::vector<int32_t> sequence(static_cast<size_t>(n), 1);
    std::vector<int32_t> position;
    for (int64_t i = 0; i < n; ++i) position.push_back(static_cast<int32_t>(done + i));
    const Var rows = bench.tape().constant(qkv.rows(done, done + n));
    CacheRows where{sequence.data(), position.data(), tables.view(c.block), c.window, {}};
    if (c.rotary) {
      where.rotations = ops::rotations_of(bench.tape(), qkv.dtype(), position.data(), n, c.head_dim, kTheta);
    }
    const auto part =
        test::to_doubles(ops::cached_attention(bench.tape(), rows, {1, n, c.heads, c.kv_heads, c.head_dim},
                                               kScale, cache, where)
                             .value());
    y.insert(y.end(), part.begin(), part.end());
    done += n;
    while (c.window > 0 && (tables.dropped[1] + 1) * c.block <= done + 1 - c.window) {
      const int32_t free = tables.blocks[static_cast<size_t>(tables.begin[1])];
      for (const Tensor& all : {cache.keys, cache.values}) {
        visit_float_dtype(all.dtype(), [&]<class T>() {
          std::fill_n(all.rows(free, free + 1).data<T>(), c.kv_heads * c.block * c.head_dim, T(NAN));
        });
      }
      tables.drop(1);
    }
  }
  return y;
}

class CachedAttention : public testing::TestWithParam<CachedCase> {};

TEST_P(CachedAttention, EqualsTheDefinitionInAnyPortions) {
  const CachedCase c = GetParam();
  const int64_t length = length_of(c);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    OpBench bench;
    const Tensor qkv = bench.tensor("qkv", dtype, {length, (c.heads + 2 * c.kv_heads) * c.head_dim});
    const auto got = in_portions(bench, c, qkv, c.portions);
    const Tensor y = bench.zeros(dtype, {length, c.heads * c.head_dim});
    visit_float_dtype(y.dtype(), [&]<class T>() {
      std::transform(got.begin(), got.end(), y.data<T>(), [](double v) { return T(v); });
    });
    // Terms: those of a score and of a sum over positions. Values reach 4; a rotated row is rounded once
    // more.
    test::expect_close(y, naive(c, test::to_doubles(qkv)), c.head_dim + length, 8, to_string(dtype));

    const std::vector<int64_t> one_by_one(static_cast<size_t>(length), 1);
    EXPECT_EQ(in_portions(bench, c, qkv, one_by_one), got) << "a row's bits do not depend on its portion";
    EXPECT_EQ(in_portions(bench, c, qkv, {length}), got);
    test::expect_same_on_any_thread_count([&] { return in_portions(bench, c, qkv, c.portions); });
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, CachedAttention,
    testing::Values(CachedCase{1, 1, 1, {1, 1}, false}, CachedCase{2, 2, 64, {9, 1, 6}, false},
                    CachedCase{3, 3, 6, {1, 4, 5}, true}, CachedCase{4, 2, 80, {17, 1}, true},
                    CachedCase{6, 1, 24, {3, 3, 3}, false, 1}, CachedCase{2, 2, 64, {9, 1, 6}, false, 16},
                    CachedCase{2, 1, 16, {5, 1, 1, 9, 1, 1}, true, 4, 5},
                    CachedCase{2, 2, 8, {13, 2, 1}, false, 2, 1},
                    CachedCase{4, 2, 8, {1, 11, 4}, true, 8, 8}));

TEST(CachedAttention, RowsOfSeveralSequencesDoNotMeet) {
  const CachedCase c{2, 1, 16, {3, 1}, false};
  OpBench bench;
  MicroBatch inference = bench.micro_batch;
  inference.training = false;
  const Tensor a = bench.tensor("a", DType::f32, {4, 64}), b = bench.tensor("b", DType::f32, {4, 64});
  const auto alone_a = in_portions(bench, c, a, {4}), alone_b = in_portions(bench, c, b, {4});
  const LayerCache cache = make_cache(bench, c, DType::f32, 2);
  const Tables tables(2, 1);
  // a0 b0 | a1 a2 b1 b2 | b3 a3
  const std::vector<std::vector<std::pair<int32_t, int32_t>>> calls = {
      {{0, 0}, {1, 0}}, {{0, 1}, {0, 2}, {1, 1}, {1, 2}}, {{1, 3}, {0, 3}}};
  for (const auto& call : calls) {
    bench.tape().begin(inference);
    const auto n = static_cast<int64_t>(call.size());
    const Tensor rows = bench.zeros(DType::f32, {n, 64});
    std::vector<int32_t> sequence, position;
    for (const auto& [s, t] : call) {
      copy((s == 0 ? a : b).rows(t, t + 1),
           rows.rows(int64_t(sequence.size()), int64_t(sequence.size()) + 1));
      sequence.push_back(s), position.push_back(t);
    }
    const auto y = test::to_doubles(
        ops::cached_attention(bench.tape(), bench.tape().constant(rows), {n, 1, 2, 1, 16}, kScale, cache,
                              {sequence.data(), position.data(), tables.view(4), 0, {}})
            .value());
    for (size_t i = 0; i < call.size(); ++i) {
      const auto& alone = call[i].first == 0 ? alone_a : alone_b;
      const auto at = alone.begin() + 32 * call[i].second;
      EXPECT_EQ(std::vector<double>(y.begin() + 32 * int64_t(i), y.begin() + 32 * int64_t(i + 1)),
                std::vector<double>(at, at + 32));
    }
  }
}

TEST(CachedAttentionMisuse, ShapesAndPlacesAreNamed) {
  const CachedCase c{2, 1, 4, {2}, true};
  OpBench bench;
  MicroBatch inference = bench.micro_batch;
  inference.training = false;
  bench.tape().begin(inference);
  const LayerCache good = make_cache(bench, c, DType::f32, 4);
  const Var qkv = bench.tape().constant(bench.tensor("qkv", DType::f32, {2, 16}));
  Tables tables(2, 2);
  int64_t window = 0;
  ops::Rotations rotations;
  const auto run = [&](const LayerCache& cache, std::vector<int32_t> sequence, std::vector<int32_t> position,
                       AttentionShape shape = {1, 2, 2, 1, 4}) {
    return ops::cached_attention(bench.tape(), qkv, shape, kScale, cache,
                                 {sequence.data(), position.data(), tables.view(c.block), window, rotations});
  };
  EXPECT_NO_THROW(run(good, {0, 1}, {0, 0}));
  EXPECT_THROW(run(good, {0, 2}, {0, 0}), Error);                   // no such sequence
  EXPECT_THROW(run(good, {0, 0}, {7, 8}), Error);                   // no block
  EXPECT_THROW(run(good, {0, 0}, {-1, 0}), Error);                  // before the beginning
  EXPECT_THROW(run(good, {0, 0}, {0, 1}, {1, 2, 2, 1, 5}), Error);  // another qkv
  LayerCache other = good;
  other.values = bench.zeros(DType::f32, {4, 1, 3, 4});
  EXPECT_THROW(run(other, {0, 0}, {0, 1}), Error);
  EXPECT_THROW(run(make_cache(bench, c, DType::f64, 4), {0, 0}, {0, 1}), Error);
  rotations.cosine = bench.zeros(DType::f32, {2, 2}), rotations.sine = bench.zeros(DType::f32, {3, 2});
  EXPECT_THROW(run(good, {0, 0}, {0, 1}), Error);
  rotations = {};
  EXPECT_THROW(run(make_cache(bench, c, DType::f32, 3), {0, 0}, {0, 1}), Error);  // block 3 of 3
  tables.drop(0);
  EXPECT_THROW(run(good, {0, 0}, {4, 5}), Error);  // sees what was let go
  window = 1;
  EXPECT_NO_THROW(run(good, {0, 0}, {4, 5}));
}

TEST(CachedAttentionMisuse, RefusesTraining) {
  const CachedCase c{2, 1, 4, {2}, false};
  OpBench bench;
  const LayerCache cache = make_cache(bench, c, DType::f32, 1);
  const Tables tables(1, 1);
  const Var qkv = bench.tape().constant(bench.tensor("qkv", DType::f32, {1, 16}));
  const int32_t zero = 0;
  EXPECT_THROW(ops::cached_attention(bench.tape(), qkv, {1, 1, 2, 1, 4}, kScale, cache,
                                     {&zero, &zero, tables.view(c.block), 0, {}}),
               Error);
}

}  // namespace
}  // namespace ziggurat
