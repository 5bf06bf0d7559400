// What a config says about the optimizer, the learning rate and the batch ramp-up. Defaults are those of the
// published 350M dense model (DeepSpeed-MoE's training scripts).
#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/config/fields.h>

namespace ziggurat {

//   cosine    from lr to min_lr between warmup_tokens and decay_tokens, then min_lr
//   linear    the same in a straight line
//   constant  lr after the warm-up
//   wsd       warm-up, stable, decay: lr, then a straight line to min_lr in the last wsd_decay_tokens
//   rsqrt     lr sqrt(warmup_tokens / tokens), never below min_lr
enum class LrScheduleKind { cosine, linear, constant, wsd, rsqrt };

inline std::vector<EnumName> enum_names(LrScheduleKind) {
  return {{LrScheduleKind::cosine, "cosine"},
          {LrScheduleKind::linear, "linear"},
          {LrScheduleKind::constant, "constant"},
          {LrScheduleKind::wsd, "wsd"},
          {LrScheduleKind::rsqrt, "rsqrt"}};
}

struct OptimizerConfig {
  LrScheduleKind schedule = LrScheduleKind::cosine;
  double lr = 3.0e-4;
  double min_lr = 3.0e-5;
  int64_t warmup_tokens = 375'000'000;
  int64_t decay_tokens = 260'000'000'000;
  int64_t wsd_decay_tokens = 0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip_grad = 1.0;

  template <class V>
  void visit_fields(V& v) {
    v.field("schedule", schedule, "learning rate after the warm-up: cosine, linear, constant, wsd or rsqrt");
    v.field("lr", lr, "peak learning rate", above(0.0));
    v.field("min_lr", min_lr, "learning rate at decay_tokens and after", at_least(0));
    v.field("warmup_tokens", warmup_tokens, "linear warm-up from 0", unit::tokens, at_least(0),
            at_most(1e18));
    v.field("decay_tokens", decay_tokens, "tokens at which min_lr is reached", unit::tokens, at_least(0),
            at_most(1e18));
    v.field("wsd_decay_tokens", wsd_decay_tokens, "schedule wsd: length of the decay before decay_tokens",
            unit::tokens, at_least(0), at_most(1e18));
    v.field("beta1", beta1, "decay of the mean of gradients", at_least(0), below(1));
    v.field("beta2", beta2, "decay of the mean of squared gradients", at_least(0), below(1));
    v.field("eps", eps, "added to the root of the second moment", above(0.0));
    v.field("weight_decay", weight_decay, "decoupled; matrices only", at_least(0));
    v.field("clip_grad", clip_grad, "largest gradient norm; 0 = no clipping", at_least(0));
  }
  void validate(Problems& problems) const;
};

// The global batch grows from `start` by `increment` at even distances over the first `samples` samples.
struct BatchRampupConfig {
  int64_t start = 0;
  int64_t increment = 0;
  int64_t samples = 0;

  bool enabled() const { return start > 0; }

  template <class V>
  void visit_fields(V& v) {
    v.field("start", start, "global batch of the first step, in sequences; 0 = no ramp-up", at_least(0),
            at_most(1 << 24));
    v.field("increment", increment, "sequences added at a time", at_least(0), at_most(1 << 24));
    v.field("samples", samples, "samples after which the full batch is reached", unit::samples, at_least(0),
            at_most(1e11));
  }
  void validate(Problems& problems) const;
};

}  // namespace ziggurat
