#include <cmath>

#include <ziggurat/train/step_history.h>

namespace ziggurat::train {

namespace {

double limit(const std::deque<double>& values, double sigma) {
  const auto n = static_cast<double>(values.size());
  double mean = 0, variance = 0;
  for (const double value : values) mean += value / n;
  for (const double value : values) variance += (value - mean) * (value - mean) / n;
  return mean + sigma * std::sqrt(variance);
}

}  // namespace

void StepHistory::add(double loss, double grad_norm, int64_t window) {
  losses.push_back(loss);
  grad_norms.push_back(grad_norm);
  while (static_cast<int64_t>(losses.size()) > window) losses.pop_front(), grad_norms.pop_front();
}

StepLimits StepHistory::limits(double sigma, int64_t window) const {
  if (2 * static_cast<int64_t>(losses.size()) < window) return {};
  return {limit(losses, sigma), limit(grad_norms, sigma)};
}

}  // namespace ziggurat::train
