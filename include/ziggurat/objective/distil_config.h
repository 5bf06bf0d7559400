// Learning from a teacher: Mixture-of-Students (DeepSpeed-MoE, section 4.2).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ziggurat/config/fields.h>

namespace ziggurat::objective {

// What becomes of the weight after `until`.
enum class AfterUntil { zero, linear, cosine };
inline std::vector<EnumName> enum_names(AfterUntil) {
  return {{AfterUntil::zero, "0"}, {AfterUntil::linear, "linear"}, {AfterUntil::cosine, "cosine"}};
}

struct DistilWeightConfig {
  double start = 1;
  int64_t until = 0;
  AfterUntil then = AfterUntil::zero;
  int64_t end = 0;

  template <class V>
  void visit_fields(V& v) {
    v.field("start", start, "of the divergence from the teacher in the loss, beside the cross-entropy's 1",
            above(0), at_most(1e6));
    v.field("until", until, "tokens of the run that are trained with this weight; 0: all", unit::tokens,
            at_least(0), at_most(1e18));
    v.field(
        "then", then,
        "0: next tokens alone from there on, and the teacher leaves the memory; linear, cosine: the weight "
        "falls to 0 from there to `end`");
    v.field("end", end, "with linear and cosine: tokens at which the weight has become 0; 0: train.tokens",
            unit::tokens, at_least(0), at_most(1e18));
  }
  void validate(Problems& problems) const;
};

// Of the loss of a step that begins after so many tokens of a run of train_tokens.
double distil_weight(const DistilWeightConfig& config, int64_t tokens, int64_t train_tokens);

enum class TeacherPrecision { trained, bf16, fp32 };
inline std::vector<EnumName> enum_names(TeacherPrecision) {
  return {{TeacherPrecision::trained, "trained"},
          {TeacherPrecision::bf16, "bf16"},
          {TeacherPrecision::fp32, "fp32"}};
}

struct DistilConfig {
  std::string teacher;
  std::string teacher_config;
  TeacherPrecision precision = TeacherPrecision::trained;
  DistilWeightConfig weight;
  double temperature = 1;
  std::vector<int64_t> init_layers;

  template <class V>
  void visit_fields(V& v) {
    v.field(
        "teacher", teacher,
        "checkpoint of a trained model with the same vocabulary, or the folder of its run, then the newest; "
        "empty: no distillation");
    v.field("teacher_config", teacher_config,
            "config of the teacher's run, by which `plan` counts it before its checkpoint is there");
    v.field("precision", precision, "in which the teacher computes; trained: as it did in its training");
    v.field("weight", weight, "how much the teacher counts, by tokens");
    v.field("temperature", temperature, "both models' logits are divided by it before they are compared",
            above(0), at_most(1e3));
    v.field(
        "init_layers", init_layers,
        "the teacher's layer (0 is the first) that each layer of the student starts as, beside embeddings, "
        "final norm and head; empty: all of it starts afresh");
  }

  bool enabled() const { return !teacher.empty(); }
};

}  // namespace ziggurat::objective
