// What a config says about the optimizer, the learning rate and the batch ramp-up. Defaults are those of the
// published 350M dense model (DeepSpeed-MoE's training scripts).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ziggurat/config/fields.h>

namespace ziggurat {

//   cosine    from lr to min_lr between warmup_tokens and decay_tokens, then min_lr
//   linear    the same in a straight line
//   constant  lr after the warm-up
//   wsd       warm-up, stable, decay: lr, then a straight line to min_lr in the last wsd_decay_tokens
//   rsqrt     lr sqrt(warmup_tokens / tokens), never below min_lr
//   flat_rsqrt  the same, but lr from the start instead of a warm-up (OpenMoE, T5)
enum class LrScheduleKind { cosine, linear, constant, wsd, rsqrt, flat_rsqrt };

inline std::vector<EnumName> enum_names(LrScheduleKind) {
  return {{LrScheduleKind::cosine, "cosine"},     {LrScheduleKind::linear, "linear"},
          {LrScheduleKind::constant, "constant"}, {LrScheduleKind::wsd, "wsd"},
          {LrScheduleKind::rsqrt, "rsqrt"},       {LrScheduleKind::flat_rsqrt, "flat_rsqrt"}};
}

//   adamw      kernels/adamw.h
//   lion       kernels/lion.h; wants a third of AdamW's lr and three times its weight decay
//   muon       kernels/muon.h for every hidden matrix, expert by expert; AdamW for the rest
//   adafactor  kernels/adafactor.h; lr is relative to each matrix's own size
enum class OptimizerKind { adamw, lion, muon, adafactor };

inline std::vector<EnumName> enum_names(OptimizerKind) {
  return {{OptimizerKind::adamw, "adamw"},
          {OptimizerKind::lion, "lion"},
          {OptimizerKind::muon, "muon"},
          {OptimizerKind::adafactor, "adafactor"}};
}

// How long an update of Muon is, for a matrix [rows, cols] in units of lr: as AdamW's usually are,
// 0.2 sqrt(max(rows, cols)) (Moonshot, arXiv 2502.16982), or sqrt(max(1, rows / cols)) (its author's).
enum class MuonScale { adamw, shape };

inline std::vector<EnumName> enum_names(MuonScale) {
  return {{MuonScale::adamw, "adamw"}, {MuonScale::shape, "shape"}};
}

struct MuonConfig {
  double momentum = 0.95;
  bool nesterov = true;
  int64_t iterations = 5;
  MuonScale scale = MuonScale::adamw;

  template <class V>
  void visit_fields(V& v) {
    v.field("momentum", momentum, "decay of the sum of gradients", at_least(0), below(1));
    v.field("nesterov", nesterov, "add the gradient once more to the momentum that is made orthogonal");
    v.field("iterations", iterations, "of Newton and Schulz, towards an orthogonal matrix", at_least(1),
            at_most(50));
    v.field("scale", scale,
            "adamw: updates as long as AdamW's, so that its lr and weight decay serve; shape: sqrt(max(1, "
            "rows/cols))");
  }
};

struct AdafactorConfig {
  double decay_exponent = 0.8;
  double clip = 1.0;
  double least_scale = 1e-3;
  int64_t least_factored = 128;

  template <class V>
  void visit_fields(V& v) {
    v.field("decay_exponent", decay_exponent, "c: squares decay by 1 - t^-c in update t", above(0.0),
            at_most(1));
    v.field("clip", clip, "largest root mean square of an update before lr", above(0.0));
    v.field("least_scale", least_scale, "an update is lr times the matrix's root mean square, at least this",
            above(0.0));
    v.field("least_factored", least_factored,
            "matrices with both sides this long keep sums of rows and columns, the others every square",
            at_least(1), at_most(1e9));
  }
};

// The name of what no ClipGroup takes.
inline constexpr const char* kRestOfGradient = "rest";

// Parameters whose gradients are clipped by a norm of their own.
struct ClipGroup {
  std::string name;
  std::string parameters;
  double norm = 1.0;

  template <class V>
  void visit_fields(V& v) {
    v.field("name", name, "of the group, in metrics.jsonl and the log", not_empty);
    v.field("parameters", parameters,
            "pattern of names (* stands for anything), as *.experts.* or embed.*; of several groups that a "
            "parameter fits, it is in the first",
            not_empty);
    v.field("norm", norm, "largest norm of the group's gradient; 0: it is told, and not clipped",
            at_least(0));
  }
};

// Of what an optimizer keeps. bf16: rounded stochastically, as a function of seed, step and element.
enum class StateDtype { fp32, bf16 };

inline std::vector<EnumName> enum_names(StateDtype) {
  return {{StateDtype::fp32, "fp32"}, {StateDtype::bf16, "bf16"}};
}

struct OptimizerConfig {
  OptimizerKind kind = OptimizerKind::adamw;
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
  std::vector<ClipGroup> clip_groups = {};
  double average = 0.0;
  StateDtype moments = StateDtype::fp32;
  StateDtype masters = StateDtype::fp32;
  MuonConfig muon = {};
  AdafactorConfig adafactor = {};

  template <class V>
  void visit_fields(V& v) {
    v.field("kind", kind, "adamw, lion, muon (hidden matrices; adamw for the rest) or adafactor");
    v.field(
        "schedule", schedule,
        "learning rate after the warm-up: cosine, linear, constant, wsd, rsqrt, or flat_rsqrt without one");
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
    v.field(
        "clip_groups", clip_groups,
        "parameters that are clipped apart, each group by its own norm, and clip_grad is of the rest; none: "
        "all by one");
    v.field("average", average,
            "decay of an exponential average of the weights, which is kept and saved beside them for eval, "
            "generate, serve and export --average; 0: none",
            at_least(0), below(1));
    v.field("moments", moments,
            "fp32 (fp64 with precision fp64), or bf16 by stochastic rounding: half as much");
    v.field("masters", masters,
            "exact weights beside those of precision bf16; bf16: none, updates are rounded stochastically");
    v.field("muon", muon, "kind muon");
    v.field("adafactor", adafactor, "kind adafactor");
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
