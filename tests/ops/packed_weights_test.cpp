// Products with packed weights: against naive sums, and every op that uses them against itself without.
#include <numeric>

#include "tests/support/op_test.h"
#include <ziggurat/kernels/weight_copies.h>
#include <ziggurat/ops/cross_entropy.h>
#include <ziggurat/ops/grouped_linear.h>
#include <ziggurat/ops/linear.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using kernels::Copies;
using kernels::PackedWeights;
using kernels::Side;
using kernels::WeightProduct;
using test::OpBench;

constexpr int64_t kBytes = int64_t{1} << 24;

PackedWeights pack(const Tensor& weight, int64_t rows, Arena& memory, Copies copies = Copies::both) {
  const int64_t in = weight.dim(weight.rank() - 1), total = weight.numel() / in;
  return weight.dtype() == DType::bf16 ? PackedWeights(weight.data<bf16>(), total, rows, in, copies, memory)
                                       : PackedWeights(weight.data<float>(), total, rows, in, copies, memory);
}

bool supported(DType dtype, int64_t total, int64_t rows, int64_t in) {
  return dtype == DType::bf16 ? PackedWeights::supported<bf16>(total, rows, in, Copies::both)
                              : PackedWeights::supported<float>(total, rows, in, Copies::both);
}

bool has_packed_products() { return PackedWeights::supported<float>(64, 64, 64, Copies::both); }

// A [rows, k] op(W) as plain sums, where W [out, in] is matrix `index` of `weight`.
std::vector<double> naive(Side side, const Tensor& a, const Tensor& weight, int64_t index, int64_t out,
                          int64_t in) {
  const auto as = test::to_doubles(a), ws = test::to_doubles(weight);
  const int64_t rows = a.dim(0), k = side == Side::forward ? in : out, n = side == Side::forward ? out : in;
  std::vector<double> c(static_cast<size_t>(rows * n), 0.0);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t p = 0; p < k; ++p) {
        const int64_t w = side == Side::forward ? j * in + p : p * in + j;
        c[static_cast<size_t>(i * n + j)] +=
            as[static_cast<size_t>(i * k + p)] * ws[static_cast<size_t>(index * out * in + w)];
      }
    }
  }
  return c;
}

template <class T, class TC>
Tensor product(Side side, const Tensor& a, PackedWeights& packed, int64_t index, const Tensor& c,
               bool accumulate) {
  Arena workspace("workspace", kBytes, Device::cpu, Canaries::checked);
  Stream stream;
  kernels::weight_product<Device::cpu>(
      WeightProduct<T, TC>{side, a.dim(0), packed.out(index), packed.in(), a.data<T>(), nullptr, &packed,
                           index, c.data<TC>(), accumulate},
      workspace, stream);
  return c;
}

struct Matrix {
  int64_t out, in;
};

// Multiples of the library's tiles, one element more, fewer than a tile, long and short.
const Matrix kMatrices[] = {{64, 64}, {65, 63}, {7, 130}, {130, 7}, {1, 1}, {256, 48}};

TEST(PackedWeights, ProductsEqualNaiveSums) {
  if (!has_packed_products()) GTEST_SKIP() << "this CPU has no packed products";
  OpBench bench;
  Arena copies("copies", kBytes, Device::cpu, Canaries::checked);
  for (const Matrix m : kMatrices) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Tensor weight = bench.tensor(fmt::format("w{}x{}", m.out, m.in), dtype, {3, m.out, m.in});
      if (!supported(dtype, 3 * m.out, m.out, m.in)) continue;
      PackedWeights packed = pack(weight, m.out, copies);
      for (const Side side : {Side::forward, Side::backward}) {
        const int64_t k = side == Side::forward ? m.in : m.out, n = side == Side::forward ? m.out : m.in;
        for (const int64_t rows : {1, 5, 64, 200}) {
          const std::string what = fmt::format("{} {}x{} rows {}", to_string(dtype), m.out, m.in, rows);
          const Tensor a = bench.tensor(fmt::format("a{}", what), dtype, {rows, k});
          const auto want = naive(side, a, weight, 2, m.out, m.in);
          const double magnitude = 4;
          if (dtype == DType::f32) {
            const Tensor c = bench.zeros(DType::f32, {rows, n});
            test::expect_close(product<float, float>(side, a, packed, 2, c, false), want, k, magnitude, what);
            auto twice = want;
            for (double& v : twice) v *= 2;
            test::expect_close(product<float, float>(side, a, packed, 2, c, true), twice, 2 * k, magnitude,
                               what);
          } else {
            const Tensor sum = bench.zeros(DType::f32, {rows, n}), c = bench.zeros(dtype, {rows, n});
            test::expect_close(product<bf16, float>(side, a, packed, 2, sum, false), want, k, magnitude,
                               what);
            test::expect_close(product<bf16, bf16>(side, a, packed, 2, c, false), want, k,
                               magnitude * std::sqrt(static_cast<double>(k)), what);
          }
        }
      }
    }
  }
}

TEST(PackedWeights, AChangedWeightCountsAfterExpiry) {
  if (!has_packed_products()) GTEST_SKIP() << "this CPU has no packed products";
  OpBench bench;
  Arena copies("copies", kBytes);
  const Tensor weight = bench.tensor("w", DType::f32, {64, 64}), a = bench.tensor("a", DType::f32, {8, 64});
  const Tensor c = bench.zeros(DType::f32, {8, 64});
  PackedWeights packed = pack(weight, 64, copies);
  EXPECT_THROW((void)packed.copy(0, Side::forward), Error);
  const auto before = test::to_doubles(product<float, float>(Side::forward, a, packed, 0, c, false));
  std::fill_n(weight.data<float>(), weight.numel(), 0.0f);
  EXPECT_EQ(test::to_doubles(product<float, float>(Side::forward, a, packed, 0, c, false)), before);
  packed.expire();
  EXPECT_FALSE(packed.prepared(0, Side::forward));
  EXPECT_EQ(test::largest(test::to_doubles(product<float, float>(Side::forward, a, packed, 0, c, false))),
            0.0);
}

TEST(PackedWeights, AreRefusedOnAStrictStream) {
  if (!has_packed_products()) GTEST_SKIP() << "this CPU has no packed products";
  OpBench bench(Reproducible::strict);
  Arena copies("copies", kBytes), workspace("workspace", kBytes);
  Param& w = bench.param("w", DType::f32, {64, 64});
  PackedWeights packed = pack(w.value, 64, copies);
  const Tensor x = bench.tensor("x", DType::f32, {4, 64}), y = bench.zeros(DType::f32, {4, 64});
  EXPECT_THROW(kernels::weight_product<Device::cpu>(
                   WeightProduct<float, float>{Side::forward, 4, 64, 64, x.data<float>(),
                                               w.value.data<float>(), &packed, 0, y.data<float>()},
                   workspace, bench.tape().stream()),
               Error);
}

TEST(PackedWeights, ForwardCopiesTakeHalfTheMemory) {
  if (!has_packed_products()) GTEST_SKIP() << "this CPU has no packed products";
  OpBench bench;
  Arena one("forward", kBytes), two("both", kBytes);
  const Tensor w = bench.tensor("w", DType::f32, {64, 64});
  PackedWeights packed = pack(w, 64, one, Copies::forward);
  pack(w, 64, two, Copies::both);
  EXPECT_TRUE(packed.has(Side::forward));
  EXPECT_FALSE(packed.has(Side::backward));
  EXPECT_EQ(2 * one.used(), two.used());
  EXPECT_THROW((void)packed.copy(0, Side::backward), Error);
}

TEST(PackedWeights, F64HasNone) { EXPECT_FALSE(PackedWeights::supported<double>(64, 64, 64, Copies::both)); }

// Of one shape and dtype, what streams keep.
PackedWeights* kept(const Tensor& w, uint64_t version, Stream& stream) {
  return kernels::weight_copies(kernels::WeightRole::expert, w.data<float>(), version, w.dim(0), w.dim(0),
                                w.dim(1), stream);
}

TEST(WeightCopies, AreMadeOnceAndAnewForAnotherVersion) {
  if (!has_packed_products()) GTEST_SKIP() << "this CPU has no packed products";
  OpBench bench;
  Stream stream;
  const Tensor w = bench.tensor("w", DType::f32, {64, 64}),
               other = bench.tensor("other", DType::f32, {64, 64});
  stream.set_weight_rows(1);
  PackedWeights* const copies = kept(w, 1, stream);
  ASSERT_NE(copies, nullptr);
  const int64_t bytes = stream.cache_bytes();
  EXPECT_GE(bytes, 2 * w.bytes()) << "of both sides";
  copies->prepare(0, Side::forward);
  EXPECT_EQ(kept(w, 1, stream), copies);
  EXPECT_TRUE(copies->prepared(0, Side::forward));
  EXPECT_EQ(kept(w, 2, stream), copies);
  EXPECT_FALSE(copies->prepared(0, Side::forward));
  EXPECT_EQ(stream.cache_bytes(), bytes) << "a new version lies where the old one did";
  EXPECT_NE(kept(other, 2, stream), copies);
  EXPECT_EQ(stream.cache_bytes(), 2 * bytes);
}

TEST(WeightCopies, AreKeptOnlyWhereTheyMayPay) {
  OpBench bench;
  const Tensor w = bench.tensor("w", DType::f32, {64, 64});
  const auto expect_none = [&](Stream& stream, uint64_t version) {
    EXPECT_EQ(kept(w, version, stream), nullptr);
    EXPECT_EQ(stream.cache_bytes(), 0);
  };
  Stream unknown, strict(Device::cpu, Reproducible::strict), known;
  expect_none(unknown, 1);
  strict.set_weight_rows(Stream::kAllRows);
  expect_none(strict, 1);
  known.set_weight_rows(Stream::kAllRows);
  expect_none(known, 0);
}

// Runs `op(tape, x, weight)`, which calls backward by itself, with and without copies that the stream keeps,
// and compares what it returns and both gradients.
template <class Op>
void expect_same_packed(DType dtype, Shape x_shape, Shape w_shape, const Op& op) {
  const int64_t length = 8;
  const uint64_t version = 1;
  std::vector<std::vector<double>> results[3];
  for (const int with_copies : {0, 1, 2}) {  // none, for few rows (where any), for many
    OpBench bench;
    const Var x = bench.tape().variable(bench.tensor("x", dtype, x_shape));
    Param& w = bench.param("w", dtype, w_shape, 0.3);
    w.version = &version;
    Stream& stream = bench.tape().stream();
    stream.set_weight_rows(with_copies == 0 ? 0 : with_copies == 1 ? 1 : 2048);
    std::vector<double> result = op(bench, x, w);
    EXPECT_TRUE(with_copies == 1 || (stream.cache_bytes() > 0) == (with_copies == 2));
    results[with_copies] = {std::move(result), test::to_doubles(bench.tape().grad(x)),
                            test::to_doubles(w.grad)};
  }
  for (size_t i = 0; i < results[0].size(); ++i) {
    const double size = std::max(1.0, test::largest(results[0][i]));
    for (const int with_copies : {1, 2}) {
      test::expect_within(results[with_copies][i], results[0][i], size * test::random_walk(dtype, length),
                          fmt::format("{} part {} copies {}", to_string(dtype), i, with_copies));
    }
  }
}

std::vector<double> all_of(const Var& y) { return test::to_doubles(y.value()); }

TEST(PackedWeights, OpsGiveTheSameWithAndWithout) {
  if (!has_packed_products()) GTEST_SKIP() << "this CPU has no packed products";
  for (const DType dtype : {DType::f32, DType::bf16}) {
    if (!supported(dtype, 72, 72, 40)) continue;
    expect_same_packed(dtype, {33, 40}, {72, 40}, [](OpBench& bench, Var x, Param& w) {
      Tape& tape = bench.tape();
      const Var y = ops::linear(tape, x, w, nullptr, ops::Activation::gelu_tanh);
      tape.backward(y, bench.tensor("dy", y.dtype(), y.shape()));
      return all_of(y);
    });
    // Experts without rows, with a few, and with more than a unit.
    expect_same_packed(dtype, {300, 40}, {4, 72, 40}, [](OpBench& bench, Var x, Param& w) {
      const Tensor offsets = bench.ints(test::offsets_of({10, 10, 0, 0, 0, 0, 280, 0}));  // of 2 sources
      Tape& tape = bench.tape();
      const Var y = ops::grouped_linear(tape, x, offsets, w, nullptr, ops::Activation::gelu_tanh);
      tape.backward(y, bench.tensor("dy", y.dtype(), y.shape()));
      return all_of(y);
    });
    // A vocabulary of more than a tile, in two rows more than that.
    constexpr int64_t kVocabulary = ops::kVocabularyTile + 62;
    expect_same_packed(dtype, {33, 40}, {kVocabulary + 2, 40}, [](OpBench& bench, Var x, Param& w) {
      std::vector<int32_t> targets(33);
      std::iota(targets.begin(), targets.end(), int32_t{ops::kVocabularyTile} - 8);
      ops::LossArgs args;
      args.vocab_size = kVocabulary;
      Tape& tape = bench.tape();
      const Tensor sums = ops::cross_entropy(tape, x, w, targets.data(), args);
      const double loss = sums.data<double>()[0];
      tape.backward();
      return std::vector<double>{loss / 33};
    });
  }
}

}  // namespace
}  // namespace ziggurat
