#include <cmath>
#include <vector>

#include <gmock/gmock.h>

#include <ziggurat/core/philox.h>
#include <ziggurat/train/step_history.h>

namespace ziggurat::train {
namespace {

// mean + sigma * std of the last `window` values, as the definition says.
double naive(const std::vector<double>& values, size_t window, double sigma) {
  const std::vector<double> last(values.end() - static_cast<ptrdiff_t>(std::min(window, values.size())),
                                 values.end());
  double sum = 0, squares = 0;
  for (const double v : last) sum += v, squares += v * v;
  const double n = static_cast<double>(last.size()), mean = sum / n;
  return mean + sigma * std::sqrt(squares / n - mean * mean);
}

TEST(StepHistory, LimitsAreMeanAndDeviationsOfTheWindow) {
  const Philox rng(1, Purpose::test, 0, 0);
  StepHistory history;
  std::vector<double> losses, norms;
  for (uint64_t i = 0; i < 40; ++i) {
    losses.push_back(4 + rng.normal(2 * i));
    norms.push_back(std::exp(rng.normal(2 * i + 1)));
    history.add(losses.back(), norms.back(), 16);
    const StepLimits limits = history.limits(3, 16);
    if (i + 1 < 8) {
      EXPECT_TRUE(std::isinf(limits.loss) && std::isinf(limits.grad_norm)) << i;
    } else {
      EXPECT_NEAR(limits.loss, naive(losses, 16, 3), 1e-12) << i;
      EXPECT_NEAR(limits.grad_norm, naive(norms, 16, 3), 1e-12) << i;
    }
  }
}

TEST(StepHistory, ASpikeIsAboveAndASteadyRunBelow) {
  StepHistory history;
  const Philox rng(2, Purpose::test, 0, 0);
  for (uint64_t i = 0; i < 64; ++i) history.add(3 + 0.1 * rng.normal(i), 1 + 0.1 * rng.normal(100 + i), 128);
  const StepLimits limits = history.limits(6, 128);
  EXPECT_LT(limits.grad_norm, 50);
  EXPECT_GT(limits.grad_norm, 1.4);
  EXPECT_GT(limits.loss, 3.4);
  EXPECT_LT(limits.loss, 4);
}

}  // namespace
}  // namespace ziggurat::train
