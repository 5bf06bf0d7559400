// What the latest updates' losses and gradient norms were, and so what the next ones' may be.
#pragma once

#include <cstdint>
#include <deque>
#include <limits>

namespace ziggurat::train {

// Of a step's mean loss and of its gradient's norm; an update beyond either is left out.
struct StepLimits {
  double loss = std::numeric_limits<double>::infinity();
  double grad_norm = std::numeric_limits<double>::infinity();
  static StepLimits no_update() { return {-1e308, -1}; }
};

// The latest `window` values.
struct StepHistory {
  std::deque<double> losses, grad_norms;

  void add(double loss, double grad_norm, int64_t window);
  // mean + sigma * standard deviation of each; none before half a window is known.
  StepLimits limits(double sigma, int64_t window) const;
};

}  // namespace ziggurat::train
