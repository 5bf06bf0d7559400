#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include <ziggurat/core/philox.h>
#include <ziggurat/kernels/adamw.h>
#include <ziggurat/kernels/clip.h>
#include <ziggurat/optim/adamw.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::test {
namespace {

constexpr double kUnclipped = 1;

double sum_of_squares(const Tensor& x, Stream& stream) {
  Arena workspace("workspace", 1 << 20);
  double sum = -1;
  visit_kernels<kernels::SumOfSquaresKernels>(x, [&]<Device D, class T>() {
    kernels::sum_of_squares<D>(x.data<T>(), x.numel(), &sum, workspace, stream);
  });
  return sum;
}

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
    adamw_step(slabs.flat(), ranges, config, {lr, &scale, t}, stream);
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
  adamw_step(s.flat(), {&all, 1}, config, {0.1, &kUnclipped, 1}, stream);
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
  const double scale = 0.7;
  for (int t = 1; t <= 5; ++t) {
    whole.draw(static_cast<uint64_t>(t));
    cut.draw(static_cast<uint64_t>(t));
    adamw_step(whole.flat(), {&all, 1}, config, {1e-3, &scale, t}, stream);
    adamw_step(cut.flat(), ranges, config, {1e-3, &scale, t}, stream);
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
    adamw_step(s.flat(), {&all, 1}, {}, {1e-3, &kUnclipped, 1}, stream);
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
  adamw_step(s.flat(), ranges, {}, {1e-3, &kUnclipped, 1}, stream);
  for (size_t i = 0; i < p.size(); ++i) {
    const bool inside = i == 2 || i == 3 || i == 7;
    EXPECT_EQ(s.p[i] != p[i], inside) << i;
    EXPECT_EQ(s.m[i] != 0, inside) << i;
    EXPECT_EQ(s.c[i].bits != 0, inside) << i;
  }
  Slabs<float> none(0);
  adamw_step(none.flat(), {}, {}, {1e-3, &kUnclipped, 1}, stream);
  EXPECT_EQ(sum_of_squares(none.flat().gradient, stream), 0.0);
}

TEST(AdamW, ZeroGradientsAndZeroRateAreHarmless) {
  Slabs<float> s(100);
  const std::vector<float> p = s.p;
  Stream stream;
  const ParamRange all{0, 100, false};
  adamw_step(s.flat(), {&all, 1}, {}, {1.0, &kUnclipped, 1}, stream);
  EXPECT_EQ(s.p, p) << "0 / (0 + eps) moves nothing";
  s.draw(1);
  const ParamRange decayed{0, 100, true};
  adamw_step(s.flat(), {&decayed, 1}, {}, {0.0, &kUnclipped, 1000000}, stream);
  EXPECT_EQ(s.p, p);
  OptimizerConfig sgd;  // beta 0: moments are the gradient of this step
  sgd.beta1 = sgd.beta2 = 0;
  adamw_step(s.flat(), {&all, 1}, sgd, {0.5, &kUnclipped, 1}, stream);
  for (size_t i = 0; i < p.size(); ++i) EXPECT_NEAR(std::abs(s.p[i] - p[i]), 0.5f, 1e-5f);
}

TEST(AdamW, MisuseIsRefused) {
  Stream stream;
  Slabs<float> a(8, true), b(9, true);
  Slabs<double> d(8);
  const ParamRange all{0, 8, true};
  const auto attempt = [&](const FlatParams& p, const ParamRange& range, int64_t step) {
    adamw_step(p, {&range, 1}, {}, {1e-3, &kUnclipped, step}, stream);
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
  EXPECT_THROW(adamw_step(a.flat(), {&all, 1}, {}, {1e-3, nullptr, 1}, stream), Error);
  EXPECT_THROW(sum_of_squares(a.flat().compute, stream), Error);
}

// Slabs of which masters, moments or both are bf16.
struct RoundedSlabs {
  RoundedSlabs(int64_t n, bool masters, bool moments)
      : arena("slabs", 1 << 28),
        p(allocate(arena, masters ? DType::bf16 : DType::f32, {n})),
        g(allocate(arena, DType::f32, {n})),
        m(allocate(arena, moments ? DType::bf16 : DType::f32, {n})),
        v(allocate(arena, m.dtype(), {n})) {}
  FlatParams flat() const { return {p, g, m, v, {}}; }
  static void put(const Tensor& tensor, int64_t i, double value) {
    visit_float_dtype(tensor.dtype(), [&]<class T>() { tensor.data<T>()[i] = T(static_cast<float>(value)); });
  }
  static double at(const Tensor& tensor, int64_t i) {
    double value = 0;
    visit_float_dtype(tensor.dtype(), [&]<class T>() { value = static_cast<double>(tensor.data<T>()[i]); });
    return value;
  }
  Arena arena;
  Tensor p, g, m, v;
};

constexpr std::pair<bool, bool> kRounded[] = {
    {true, false}, {false, true}, {true, true}};  // masters, moments

// Many elements of the same values: each becomes one of the two bf16 beside the exact result, and their mean
// is the exact result, though it lies a hundredth of the way between the two.
TEST(RoundedAdamW, IsRightOnAverage) {
  constexpr int64_t n = 200000;
  const OptimizerConfig config;
  Stream stream;
  for (const auto& [masters, moments] : kRounded) {
    for (const double sign : {1.0, -1.0}) {
      RoundedSlabs s(n, masters, moments);
      Reference exact{sign * 1.5};
      exact.m = sign * 0.25, exact.v = 0.0625;
      const double gradient = sign * 0.26;
      for (int64_t i = 0; i < n; ++i) {
        s.put(s.p, i, exact.p), s.put(s.g, i, gradient), s.put(s.m, i, exact.m), s.put(s.v, i, exact.v);
      }
      exact.step(static_cast<double>(static_cast<float>(gradient)), 1e-4, config.weight_decay, config, 7);
      const ParamRange all{.begin = 0, .end = n, .decay = true, .name = 11, .first = 5};
      adamw_step(s.flat(), {&all, 1}, config, {1e-4, &kUnclipped, 7, 3}, stream);
      const std::tuple<const char*, Tensor, double> results[] = {
          {"p", s.p, exact.p}, {"m", s.m, exact.m}, {"v", s.v, exact.v}};
      for (const auto& [name, tensor, want] : results) {
        // Between powers of two bf16 are 2^-7 of the lower one apart; the mean of n draws of one of two
        // values strays by half of that over the root of n, five times that once in a million.
        const double apart =
            tensor.dtype() == DType::bf16 ? std::exp2(std::floor(std::log2(std::abs(want)))) * 0x1p-7 : 0;
        const double float_rounding = 8 * 0x1p-24 * std::abs(want);
        double mean = 0;
        for (int64_t i = 0; i < n; ++i) {
          ASSERT_NEAR(s.at(tensor, i), want, apart + float_rounding) << name << i;
          mean += s.at(tensor, i) / static_cast<double>(n);
        }
        EXPECT_NEAR(mean, want, 2.5 * apart / std::sqrt(static_cast<double>(n)) + float_rounding) << name;
      }
    }
  }
}

// What an element draws depends on seed, step, parameter and its place in it, and on nothing else.
TEST(RoundedAdamW, AnyCutGivesTheSameBits) {
  constexpr int64_t n = 1000;
  const Philox rng(2, Purpose::test);
  Stream stream;
  const auto run = [&](const std::vector<int64_t>& cuts, uint64_t seed, uint64_t name,
                       std::pair<bool, bool> kind) {
    RoundedSlabs s(n, kind.first, kind.second);
    for (int64_t i = 0; i < n; ++i) s.put(s.p, i, rng.normal(static_cast<uint64_t>(i)));
    fill_zero(s.m), fill_zero(s.v);
    std::vector<ParamRange> ranges;
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      ranges.push_back({cuts[i], cuts[i + 1], true, name, 77 + cuts[i]});
    }
    for (int64_t step = 1; step <= 3; ++step) {
      for (int64_t i = 0; i < n; ++i) s.put(s.g, i, rng.normal(static_cast<uint64_t>(step * n + i)));
      adamw_step(s.flat(), ranges, {}, {1e-3, &kUnclipped, step, seed}, stream);
    }
    std::vector<double> all;
    for (const Tensor& tensor : {s.p, s.m, s.v}) {
      for (int64_t i = 0; i < n; ++i) all.push_back(s.at(tensor, i));
    }
    return all;
  };
  for (const auto& kind : kRounded) {
    const auto whole = run({0, n}, 1, 1, kind);
    EXPECT_EQ(run({0, 1, 2, 63, 64, 65, 512, 999, n}, 1, 1, kind), whole);
    EXPECT_NE(run({0, n}, 2, 1, kind), whole) << "another seed";
    EXPECT_NE(run({0, n}, 1, 2, kind), whole) << "another parameter";
  }
}

// With the very words that the contract names: devices share them.
TEST(RoundedAdamW, DrawsTheWordsOfItsContract) {
  constexpr int64_t n = 300, kFirst = 77, kStep = 5;
  RoundedSlabs s(n, false, true);
  for (int64_t i = 0; i < n; ++i) s.put(s.m, i, 1 + static_cast<double>(i) / 64);
  fill_zero(s.p), fill_zero(s.g), fill_zero(s.v);
  const Tensor before = allocate(s.arena, DType::bf16, {n});
  copy(s.m, before);
  Stream stream;
  const ParamRange all{0, n, false, 9, kFirst};
  adamw_step(s.flat(), {&all, 1}, {.beta1 = 0.9}, {1e-3, &kUnclipped, kStep, 4}, stream);
  const Philox random(4, Purpose::state_rounding, 9, kStep);
  for (int64_t i = 0; i < n; ++i) {
    const auto element = static_cast<uint64_t>(kFirst + i);
    const uint32_t word = random.block(element / 2)[2 * (element % 2)];
    const float exact = 0.9f * static_cast<float>(before.data<bf16>()[i]);
    const auto bits = static_cast<uint16_t>((std::bit_cast<uint32_t>(exact) + (word & 0xffffu)) >> 16);
    ASSERT_EQ(s.m.data<bf16>()[i].bits, bits) << i;
  }
}

// A change that is always too small for a bf16 adds up all the same.
TEST(RoundedAdamW, SmallChangesAddUp) {
  constexpr int64_t n = 4096, kSteps = 200;
  RoundedSlabs s(n, true, true);
  for (int64_t i = 0; i < n; ++i) s.put(s.p, i, 1), s.put(s.g, i, 1);
  fill_zero(s.m), fill_zero(s.v);
  OptimizerConfig config;
  Stream stream;
  const ParamRange all{0, n, false};
  for (int64_t step = 1; step <= kSteps; ++step) {
    adamw_step(s.flat(), {&all, 1}, config, {1e-4, &kUnclipped, step, 1}, stream);
  }
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += s.at(s.p, i) / n;
  // Each step moves by lr; the moments' own rounding makes that right to a few percent.
  EXPECT_NEAR(mean, 1 - 1e-4 * kSteps, 0.05 * 1e-4 * kSteps);
}

TEST(RoundedAdamW, MisuseIsRefused) {
  Stream stream;
  const ParamRange all{0, 8, true};
  RoundedSlabs a(8, true, true), b(8, false, false);
  const auto attempt = [&](const FlatParams& p) {
    adamw_step(p, {&all, 1}, {}, {1e-3, &kUnclipped, 1}, stream);
  };
  EXPECT_THROW(attempt({a.p, a.g, a.m, b.v, {}}), Error) << "moments of two dtypes";
  EXPECT_THROW(attempt({a.p, a.p, a.m, a.v, {}}), Error) << "a gradient of bf16";
  EXPECT_THROW(attempt({a.p, a.g, a.m, a.v, a.p}), Error) << "a copy of what is rounded already";
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

struct Clipped {
  double norm = 0, scale = 0;
};
Clipped clip(const std::vector<double>& squares, double max_norm, const std::vector<double>& losses = {}) {
  Stream stream;
  double clipped[2] = {};
  kernels::clip<Device::cpu>(
      {std::ssize(squares), squares.data(), max_norm, std::ssize(losses), losses.data(), clipped}, stream);
  return {clipped[0], clipped[1]};
}

TEST(ClipNorm, ScalesOnlyWhatIsTooLong) {
  EXPECT_EQ(clip({0.25}, 1.0).scale, 1.0);
  EXPECT_EQ(clip({0.25}, 1.0).norm, 0.5);
  EXPECT_EQ(clip({16.0}, 1.0).scale, 0.25);
  EXPECT_EQ(clip({9.0, 0.0, 7.0}, 1.0).scale, 0.25);
  EXPECT_EQ(clip({1.0}, 1.0).scale, 1.0);
  EXPECT_EQ(clip({16.0}, 0.0).scale, 1.0);
  EXPECT_EQ(clip({0.0}, 1.0).scale, 1.0);
  EXPECT_EQ(clip({}, 1.0).scale, 1.0);
}

// Of a group of losses the first counts.
TEST(ClipNorm, HasNoScaleBeyondALimit) {
  Stream stream;
  const auto scale = [&](double most_norm, double most_loss) {
    const double squares[] = {9.0, 16.0}, losses[] = {1.0, 100.0, 2.5, 100.0};
    double clipped[2] = {};
    kernels::clip<Device::cpu>({2, squares, 1.0, 4, losses, clipped, most_norm, most_loss, 2}, stream);
    EXPECT_EQ(clipped[0], 5.0);
    return clipped[1];
  };
  EXPECT_EQ(scale(5, 3.5), 0.2);
  EXPECT_TRUE(std::isnan(scale(4.999, 3.5)));
  EXPECT_TRUE(std::isnan(scale(5, 3.499)));
  EXPECT_TRUE(std::isnan(scale(5, -1e308)));
}

// Nothing is to be updated then.
TEST(ClipNorm, HasNoScaleForWhatIsNotFinite) {
  const double infinity = std::numeric_limits<double>::infinity(),
               nan = std::numeric_limits<double>::quiet_NaN();
  for (const double max_norm : {0.0, 1.0}) {
    for (const double bad : {infinity, nan}) {
      EXPECT_FALSE(std::isfinite(clip({1.0, bad}, max_norm).scale));
      EXPECT_FALSE(std::isfinite(clip({1.0, bad}, max_norm).norm));
      EXPECT_FALSE(std::isfinite(clip({1.0}, max_norm, {0.5, bad}).scale));
      EXPECT_FALSE(std::isfinite(clip({1.0}, max_norm, {0.5, -bad}).scale));
      EXPECT_EQ(clip({1.0}, max_norm, {0.5, bad}).norm, 1.0);
    }
  }
  EXPECT_EQ(clip({4.0}, 1.0, {0.5, 1e300}).scale, 0.5);
}

TEST(AdamW, WithoutAFiniteClipFactorNothingIsUpdated) {
  for (const double scale :
       {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    Slabs<float> s(100, true);
    s.draw(1);
    const Slabs<float> before = s;
    Stream stream;
    const ParamRange all{0, 100, true};
    adamw_step(s.flat(), {&all, 1}, {}, {1e-3, &scale, 1}, stream);
    EXPECT_EQ(s.p, before.p);
    EXPECT_EQ(s.m, before.m);
    EXPECT_EQ(s.v, before.v);
    for (size_t i = 0; i < s.c.size(); ++i) ASSERT_EQ(s.c[i].bits, before.c[i].bits);
  }
}

}  // namespace
}  // namespace ziggurat::test
