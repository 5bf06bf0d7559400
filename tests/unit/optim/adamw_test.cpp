#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include <ziggurat/core/philox.h>
#include <ziggurat/optim/adamw.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::test {
namespace {

// Slabs of n elements with their memory; gradients are drawn anew for every step.
template <class T>
struct Slabs {
  explicit Slabs(int64_t n, bool with_compute = false)
      : p(size_t(n)), g(size_t(n)), m(size_t(n)), v(size_t(n)), c(with_compute ? size_t(n) : 0) {
    const Philox rng(1, Purpose::test, 0);
    for (size_t i = 0; i < p.size(); ++i) p[i] = static_cast<T>(rng.normal(i));
  }
  void draw(uint64_t step) {
    const Philox rng(1, Purpose::test, 1, step);
    for (size_t i = 0; i < g.size(); ++i) g[i] = static_cast<T>(rng.normal(i) * 0.1);
  }
  FlatParams flat() {
    const Shape shape{static_cast<int64_t>(p.size())};
    const auto tensor = [&](std::vector<T>& x) { return Tensor(x.data(), dtype_of<T>(), shape); };
    return {tensor(p), tensor(g), tensor(m), tensor(v),
            c.empty() ? Tensor() : Tensor(c.data(), DType::bf16, shape)};
  }
  std::vector<T> p, g, m, v;
  std::vector<bf16> c;
};

// The formula in double, one element, written from the paper.
struct Reference {
  double p, m = 0, v = 0;
  void step(double g, double lr, double decay, const OptimizerConfig& c, int t) {
    m = c.beta1 * m + (1 - c.beta1) * g;
    v = c.beta2 * v + (1 - c.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(c.beta1, t)), v_hat = v / (1 - std::pow(c.beta2, t));
    p -= lr * decay * p;
    p -= lr * m_hat / (std::sqrt(v_hat) + c.eps);
  }
};

template <class T>
void expect_reference(int64_t n, int steps) {
  const OptimizerConfig config;
  Stream stream;
  Slabs<T> slabs(n);
  std::vector<Reference> reference;
  for (const T p : slabs.p) reference.push_back({static_cast<double>(p)});
  const std::vector<ParamRange> ranges = {{0, n / 3, true}, {n / 3, n, false}};
  const double scale = 0.5, lr = 0.01;
  for (int t = 1; t <= steps; ++t) {
    slabs.draw(static_cast<uint64_t>(t));
    for (size_t i = 0; i < reference.size(); ++i) {
      const double decay = static_cast<int64_t>(i) < n / 3 ? config.weight_decay : 0;
      reference[i].step(scale * static_cast<double>(slabs.g[i]), lr, decay, config, t);
    }
    adamw_step(slabs.flat(), ranges, config, {lr, scale, t}, stream);
  }
  // A step rounds some ten times at sizes up to max(|p|, 1); v may lose up to half its bits in the root.
  const double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
  for (size_t i = 0; i < reference.size(); ++i) {
    const double size = std::max(1.0, std::abs(reference[i].p));
    ASSERT_NEAR(static_cast<double>(slabs.p[i]), reference[i].p, 10 * steps * eps * size) << i;
    ASSERT_NEAR(static_cast<double>(slabs.m[i]), reference[i].m, 10 * steps * eps) << i;
    ASSERT_NEAR(static_cast<double>(slabs.v[i]), reference[i].v, 10 * steps * eps) << i;
  }
}

TEST(AdamW, FollowsTheFormula) {
  for (const int64_t n : {1, 3, 16, 17, 1000, 40000}) {
    expect_reference<float>(n, 20);
    expect_reference<double>(n, 20);
  }
}

// Step 1: m_hat = g and v_hat = g^2, so p moves by lr sign(g) (but for eps), after the decay.
TEST(AdamW, FirstStepByHand) {
  OptimizerConfig config;
  Stream stream;
  Slabs<double> s(3);
  s.p = {2.0, -4.0, 1.0};
  s.g = {0.5, -8.0, 0.0};
  const ParamRange all{0, 3, true};
  adamw_step(s.flat(), {&all, 1}, config, {0.1, 1.0, 1}, stream);
  EXPECT_NEAR(s.p[0], 2.0 * (1 - 0.1 * 0.1) - 0.1 * 0.5 / (0.5 + 1e-8), 1e-15);
  EXPECT_NEAR(s.p[1], -4.0 * (1 - 0.1 * 0.1) + 0.1 * 8.0 / (8.0 + 1e-8), 1e-15);
  EXPECT_NEAR(s.p[2], 1.0 * (1 - 0.1 * 0.1), 1e-15);
  EXPECT_NEAR(s.m[0], 0.1 * 0.5, 1e-16);
  EXPECT_NEAR(s.v[1], 0.05 * 64, 1e-14);
}

TEST(AdamW, OneElementAtATimeOrInAnyRangesGivesTheSameBits) {
  const int64_t n = 5000;
  const OptimizerConfig config;
  Stream stream;
  Slabs<float> whole(n, true), cut(n, true);
  std::vector<ParamRange> ranges;
  const Philox rng(2, Purpose::test);
  for (int64_t at = 0; at < n;) {
    const int64_t size = std::min<int64_t>(n - at, rng.bits(static_cast<uint64_t>(at)) % 40);
    ranges.push_back({at, at + size, true});  // some are empty
    at += size;
    if (size == 0) ranges.push_back({at, at + 1, true}), ++at;
  }
  const ParamRange all{0, n, true};
  for (int t = 1; t <= 5; ++t) {
    whole.draw(static_cast<uint64_t>(t));
    cut.draw(static_cast<uint64_t>(t));
    adamw_step(whole.flat(), {&all, 1}, config, {1e-3, 0.7, t}, stream);
    adamw_step(cut.flat(), ranges, config, {1e-3, 0.7, t}, stream);
  }
  EXPECT_EQ(whole.p, cut.p);
  EXPECT_EQ(whole.m, cut.m);
  EXPECT_EQ(whole.v, cut.v);
  for (size_t i = 0; i < whole.c.size(); ++i) {
    ASSERT_EQ(whole.c[i].bits, bf16(whole.p[i]).bits);
    ASSERT_EQ(whole.c[i].bits, cut.c[i].bits);
  }
}

TEST(AdamW, BitsDoNotDependOnTheThreads) {
  const int64_t n = 100001;
  const int before = thread_count();
  std::vector<std::vector<float>> results;
  std::vector<double> sums;
  for (const int threads : {1, 2, 3, 4}) {
    set_thread_count(threads);
    Slabs<float> s(n);
    s.draw(1);
    Stream stream;
    sums.push_back(sum_of_squares(s.flat().gradient, stream));
    const ParamRange all{0, n, true};
    adamw_step(s.flat(), {&all, 1}, {}, {1e-3, 1.0, 1}, stream);
    results.push_back(s.p);
  }
  set_thread_count(before);
  for (size_t i = 1; i < results.size(); ++i) {
    EXPECT_EQ(results[i], results[0]);
    EXPECT_EQ(sums[i], sums[0]);
  }
}

TEST(AdamW, OnlyTheRangesAreTouched) {
  Slabs<float> s(10, true);
  s.draw(1);
  const std::vector<float> p = s.p;
  Stream stream;
  const std::vector<ParamRange> ranges = {{2, 4, true}, {4, 4, true}, {10, 10, false}, {7, 8, false}};
  adamw_step(s.flat(), ranges, {}, {1e-3, 1.0, 1}, stream);
  for (size_t i = 0; i < p.size(); ++i) {
    const bool inside = i == 2 || i == 3 || i == 7;
    EXPECT_EQ(s.p[i] != p[i], inside) << i;
    EXPECT_EQ(s.m[i] != 0, inside) << i;
    EXPECT_EQ(s.c[i].bits != 0, inside) << i;
  }
  Slabs<float> none(0);
  adamw_step(none.flat(), {}, {}, {1e-3, 1.0, 1}, stream);
  EXPECT_EQ(sum_of_squares(none.flat().gradient, stream), 0.0);
}

TEST(AdamW, ZeroGradientsAndZeroRateAreHarmless) {
  Slabs<float> s(100);
  const std::vector<float> p = s.p;
  Stream stream;
  const ParamRange all{0, 100, false};
  adamw_step(s.flat(), {&all, 1}, {}, {1.0, 1.0, 1}, stream);
  EXPECT_EQ(s.p, p) << "0 / (0 + eps) moves nothing";
  s.draw(1);
  const ParamRange decayed{0, 100, true};
  adamw_step(s.flat(), {&decayed, 1}, {}, {0.0, 1.0, 1000000}, stream);
  EXPECT_EQ(s.p, p);
  OptimizerConfig sgd;  // beta 0: moments are the gradient of this step
  sgd.beta1 = sgd.beta2 = 0;
  adamw_step(s.flat(), {&all, 1}, sgd, {0.5, 1.0, 1}, stream);
  for (size_t i = 0; i < p.size(); ++i) EXPECT_NEAR(std::abs(s.p[i] - p[i]), 0.5f, 1e-5f);
}

TEST(AdamW, MisuseIsRefused) {
  Stream stream;
  Slabs<float> a(8, true), b(9, true);
  Slabs<double> d(8);
  const ParamRange all{0, 8, true};
  const auto attempt = [&](const FlatParams& p, const ParamRange& range, int64_t step) {
    adamw_step(p, {&range, 1}, {}, {1e-3, 1.0, step}, stream);
  };
  EXPECT_NO_THROW(attempt(a.flat(), all, 1));
  EXPECT_THROW(attempt(a.flat(), all, 0), Error);
  EXPECT_THROW(attempt(a.flat(), {0, 9, true}, 1), Error);
  EXPECT_THROW(attempt(a.flat(), {-1, 8, true}, 1), Error);
  EXPECT_THROW(attempt(a.flat(), {5, 4, true}, 1), Error);
  FlatParams p = a.flat();
  p.gradient = b.flat().gradient;
  EXPECT_THROW(attempt(p, all, 1), Error);
  p = a.flat();
  p.moment2 = d.flat().moment2;
  EXPECT_THROW(attempt(p, all, 1), Error);
  p = a.flat();
  p.compute = b.flat().compute;
  EXPECT_THROW(attempt(p, all, 1), Error);
  p = d.flat();
  p.compute = a.flat().compute;
  EXPECT_THROW(attempt(p, all, 1), Error);
  EXPECT_THROW(sum_of_squares(a.flat().compute, stream), Error);
}

TEST(SumOfSquares, IsTheSumForEveryLength) {
  Stream stream;
  for (const int64_t n : {1, 15, 16, 17, 31, 4095, 4096, 4097, 100000, 5000000}) {
    std::vector<float> values(static_cast<size_t>(n));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 7919 % 1009) * 0.37f;
    long double expected = 0;
    for (const float x : values) expected += static_cast<long double>(x) * static_cast<long double>(x);
    // Squares of floats are exact in double; n additions of positive values.
    const double found = sum_of_squares(Tensor(values.data(), DType::f32, {n}), stream);
    EXPECT_NEAR(found, static_cast<double>(expected),
                static_cast<double>(expected) * static_cast<double>(n) * 0x1p-53)
        << n;
  }
  std::vector<float> large(20, 3e38f);
  EXPECT_NEAR(
      std::sqrt(sum_of_squares(Tensor(large.data(), DType::f32, {20}), stream)) / (std::sqrt(20.0) * 3e38), 1,
      1e-6)
      << "no overflow where a float sum has one";
  large[7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(sum_of_squares(Tensor(large.data(), DType::f32, {20}), stream)));
}

TEST(ClipNorm, ScalesOnlyWhatIsTooLong) {
  EXPECT_EQ(clip(0.25, 1.0).scale, 1.0);
  EXPECT_EQ(clip(0.25, 1.0).norm, 0.5);
  EXPECT_EQ(clip(16.0, 1.0).scale, 0.25);
  EXPECT_EQ(clip(1.0, 1.0).scale, 1.0);
  EXPECT_EQ(clip(16.0, 0.0).scale, 1.0);
  EXPECT_EQ(clip(0.0, 1.0).scale, 1.0);
  EXPECT_FALSE(std::isfinite(clip(std::numeric_limits<double>::infinity(), 1.0).scale));
  EXPECT_FALSE(std::isfinite(clip(std::numeric_limits<double>::quiet_NaN(), 0.0).scale));
}

}  // namespace
}  // namespace ziggurat::test
