#include <cmath>
#include <numbers>

#include <fmt/format.h>

#include <ziggurat/objective/distil_config.h>

namespace ziggurat::objective {

double distil_weight(const DistilWeightConfig& config, int64_t tokens, int64_t train_tokens) {
  if (config.until == 0 || tokens < config.until) return config.start;
  const int64_t end = config.end > 0 ? config.end : train_tokens;
  if (config.then == AfterUntil::zero || tokens >= end) return 0;
  const double done = static_cast<double>(tokens - config.until) / static_cast<double>(end - config.until);
  return config.start *
         (config.then == AfterUntil::linear ? 1 - done : 0.5 * (1 + std::cos(std::numbers::pi * done)));
}

void DistilWeightConfig::validate(Problems& problems) const {
  if (then == AfterUntil::zero && end > 0) {
    problems.add("end", "is only for then: linear and cosine; with then: 0 the weight ends at `until`");
  } else if (end > 0 && end <= until) {
    problems.add("end", fmt::format("expected more than until ({}), got {}", until, end));
  }
  if (until == 0 && then != AfterUntil::zero) {
    problems.add("until", fmt::format("expected the tokens from which the weight falls, as then is {}; got 0",
                                      enum_text(then)));
  }
}

}  // namespace ziggurat::objective
