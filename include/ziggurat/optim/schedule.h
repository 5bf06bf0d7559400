// Learning rate and global batch as functions of what was consumed, so that a resumed run goes on exactly.
#pragma once

#include <cstdint>

#include <ziggurat/optim/optimizer_config.h>

namespace ziggurat {

// The learning rate after `tokens` consumed tokens (before the step that uses it: the first step of a run
// with a warm-up has rate 0, as in Megatron's scheduler). The config must have passed validate().
//   warm-up  lr tokens / warmup
//   cosine   min_lr + (lr - min_lr) (1 + cos(pi (tokens - warmup) / (decay - warmup))) / 2
double learning_rate(const OptimizerConfig& config, int64_t tokens);

// The global batch as Megatron's ramp-up computes it: start + increment floor(consumed n / ramp samples),
// where n = (global - start) / increment; the full batch from then on.
class BatchRampup {
 public:
  // Throws Error(config) when the full batch is not start plus whole increments.
  BatchRampup(const BatchRampupConfig& config, int64_t global_batch);

  int64_t batch(int64_t consumed_samples) const;  // sequences of the next step

  // Of a run that goes on after `consumed` samples until at least so many are; O(increments).
  struct Extent {
    int64_t steps = 0, samples = 0;  // samples: consumed at its end
  };
  Extent extent(int64_t samples, int64_t consumed = 0) const;
  int64_t steps_for_samples(int64_t samples) const { return extent(samples).steps; }
  int64_t steps_for_tokens(int64_t tokens, int64_t sequence_length) const;

 private:
  int64_t first_sample(int64_t increments) const;  // consumed samples from which so many increments apply

  BatchRampupConfig config_;
  int64_t global_batch_;
  int64_t increments_ = 0;  // n
};

}  // namespace ziggurat
