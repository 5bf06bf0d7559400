#include <algorithm>
#include <cmath>
#include <numbers>

#include <ziggurat/core/error.h>
#include <ziggurat/optim/schedule.h>

namespace ziggurat {

namespace {

// How much of the way from lr down to min_lr is left, in [0, 1].
double height(const OptimizerConfig& c, double tokens) {
  const auto warmup = static_cast<double>(c.warmup_tokens), decay = static_cast<double>(c.decay_tokens);
  switch (c.schedule) {
    case LrScheduleKind::cosine:
      if (tokens >= decay) return 0;
      return 0.5 * (1 + std::cos(std::numbers::pi * (tokens - warmup) / (decay - warmup)));
    case LrScheduleKind::linear:
      return tokens >= decay ? 0 : (decay - tokens) / (decay - warmup);
    case LrScheduleKind::wsd:
      return tokens >= decay ? 0 : std::min(1.0, (decay - tokens) / static_cast<double>(c.wsd_decay_tokens));
    default:
      return 1;
  }
}

int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

}  // namespace

double learning_rate(const OptimizerConfig& c, int64_t tokens) {
  const bool warms_up = c.schedule != LrScheduleKind::flat_rsqrt;
  if (warms_up && tokens < c.warmup_tokens) {
    return c.lr * static_cast<double>(tokens) / static_cast<double>(c.warmup_tokens);
  }
  if (c.schedule == LrScheduleKind::rsqrt || c.schedule == LrScheduleKind::flat_rsqrt) {
    const double ratio = static_cast<double>(c.warmup_tokens) /
                         static_cast<double>(std::max({tokens, c.warmup_tokens, int64_t{1}}));
    return std::max(c.min_lr, c.lr * std::sqrt(ratio));
  }
  return c.min_lr + (c.lr - c.min_lr) * height(c, static_cast<double>(tokens));
}

BatchRampup::BatchRampup(const BatchRampupConfig& config, int64_t global_batch)
    : config_(config), global_batch_(global_batch) {
  check(global_batch >= 1, ErrorKind::config, "global batch: expected at least 1, got {}", global_batch);
  if (!config.enabled()) return;
  check(config.increment >= 1 && config.samples >= 1 && config.start <= global_batch &&
            (global_batch - config.start) % config.increment == 0,
        ErrorKind::config,
        "batch ramp-up: the global batch {} is not start {} plus whole increments of {} over {} samples; "
        "change one "
        "of them",
        global_batch, config.start, config.increment, config.samples);
  increments_ = (global_batch - config.start) / config.increment;
  check(increments_ == 0 || config.samples <= INT64_MAX / increments_, ErrorKind::config,
        "batch ramp-up: {} samples are too many", config.samples);
}

int64_t BatchRampup::batch(int64_t consumed) const {
  if (increments_ == 0 || consumed >= config_.samples) return global_batch_;
  return config_.start + config_.increment * (consumed * increments_ / config_.samples);
}

// The smallest c with floor(c n / samples) >= increments.
int64_t BatchRampup::first_sample(int64_t increments) const {
  return ceil_div(increments * config_.samples, increments_);
}

BatchRampup::Extent BatchRampup::extent(int64_t samples, int64_t consumed) const {
  Extent run{.samples = consumed};
  const auto take = [&run](int64_t until, int64_t size) {
    const int64_t count = ceil_div(std::max<int64_t>(0, until - run.samples), size);
    run.samples += count * size;
    run.steps += count;
  };
  const int64_t ramp = increments_ > 0 ? std::min(config_.samples, samples) : 0;
  while (run.samples < ramp) {  // all steps of one size at once
    const int64_t size = batch(run.samples), increments = (size - config_.start) / config_.increment;
    take(std::min(first_sample(increments + 1), ramp), size);
  }
  take(samples, global_batch_);
  return run;
}

int64_t BatchRampup::steps_for_tokens(int64_t tokens, int64_t sequence_length) const {
  return steps_for_samples(ceil_div(tokens, sequence_length));
}

}  // namespace ziggurat
