// What a model's MoE layers have in common. The defaults are the recipe of DeepSpeed-MoE (arXiv 2201.05596);
// where paper and code disagree both are values of an option.
#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/config/fields.h>
#include <ziggurat/ops/router.h>

namespace ziggurat::kernels {
inline std::vector<EnumName> enum_names(DropPolicy) {
  return {{DropPolicy::none, "none"},
          {DropPolicy::random, "random"},
          {DropPolicy::position, "position"},
          {DropPolicy::probability, "probability"}};
}
inline std::vector<EnumName> enum_names(SlotOrder) {
  return {{SlotOrder::choice_first, "choice_first"}, {SlotOrder::token_first, "token_first"}};
}
inline std::vector<EnumName> enum_names(Renormalise) {
  return {
      {Renormalise::none, "none"}, {Renormalise::chosen, "chosen"}, {Renormalise::survivors, "survivors"}};
}
inline std::vector<EnumName> enum_names(ChoiceNoise) {
  return {{ChoiceNoise::none, "none"},
          {ChoiceNoise::rsample, "rsample"},
          {ChoiceNoise::second_expert, "second_expert"}};
}
inline std::vector<EnumName> enum_names(RouterScore) {
  return {{RouterScore::softmax, "softmax"}, {RouterScore::sigmoid, "sigmoid"}};
}
}  // namespace ziggurat::kernels

namespace ziggurat::ops {
inline std::vector<EnumName> enum_names(CapacityRule) {
  return {{CapacityRule::with_top_k, "with_top_k"}, {CapacityRule::without_top_k, "without_top_k"}};
}
inline std::vector<EnumName> enum_names(BalanceCount) {
  return {{BalanceCount::first_choice, "first_choice"}, {BalanceCount::all_choices, "all_choices"}};
}
inline std::vector<EnumName> enum_names(BalanceScope) {
  return {{BalanceScope::micro_batch, "micro_batch"},
          {BalanceScope::group, "group"},
          {BalanceScope::sequence, "sequence"},
          {BalanceScope::global_batch, "global_batch"}};
}
}  // namespace ziggurat::ops

namespace ziggurat::moe {

using kernels::ChoiceNoise;
using kernels::DropPolicy;
using kernels::Renormalise;
using kernels::RouterScore;
using kernels::SlotOrder;
using ops::BalanceCount;
using ops::BalanceScope;
using ops::CapacityRule;

// How a residual MoE layer joins its experts and its fixed MLP.
enum class ResidualMix {
  softmax,  // c0 moe + c1 mlp, c = softmax of a linear layer of the token (the authors' code)
  sum,      // moe + mlp (the paper's text)
  sigmoid,  // moe + sigmoid of a linear layer of the token x mlp (Qwen2-MoE's shared expert)
  // A sub-layer each, the MLP after the experts with a norm of its own: x += moe(norm2(x)); x +=
  // mlp(norm3(x)) (flaxformer's extra_mlp, of which OpenMoE's released weights are; its paper has sum).
  sequential,
};
inline std::vector<EnumName> enum_names(ResidualMix) {
  return {{ResidualMix::softmax, "softmax"},
          {ResidualMix::sum, "sum"},
          {ResidualMix::sigmoid, "sigmoid"},
          {ResidualMix::sequential, "sequential"}};
}

struct MoeConfig {
  int64_t top_k = 1;
  RouterScore score = RouterScore::softmax;
  double weight_scale = 1.0;
  int64_t expert_groups = 1, chosen_groups = 1;
  bool balance_bias = false;
  double balance_bias_rate = 1e-3;
  DropPolicy drop = DropPolicy::random;
  SlotOrder slot_order = SlotOrder::choice_first;
  CapacityRule capacity_rule = CapacityRule::with_top_k;
  double capacity_factor = 1.0;
  double eval_capacity_factor = 0.0;
  int64_t min_capacity = 4;
  int64_t group_tokens = 0;
  Renormalise renormalise = Renormalise::none;
  ChoiceNoise choice_noise = ChoiceNoise::none;
  double jitter = 0.0;
  BalanceCount balance_count = BalanceCount::first_choice;
  BalanceScope balance_scope = BalanceScope::micro_batch;
  double balance_coefficient = 0.01;
  double z_coefficient = 0.0;
  bool identical_experts = false;
  int64_t expert_hidden = 0, residual_hidden = 0;
  ResidualMix residual_mix = ResidualMix::softmax;
  bool coefficient_bias = true;
  double router_init_std = 0.0;

  bool has_coefficients() const {
    return residual_mix == ResidualMix::softmax || residual_mix == ResidualMix::sigmoid;
  }

  template <class V>
  void visit_fields(V& v) {
    v.field("top_k", top_k, "experts per token", at_least(1), at_most(1 << 16));
    v.field(
        "score", score,
        "what experts are chosen and weighted by: softmax over all, or the sigmoid of each (DeepSeek-V3)");
    v.field("weight_scale", weight_scale, "the chosen experts' weights times this (DeepSeek-V3: 2.5)",
            above(0.0));
    v.field("expert_groups", expert_groups,
            "group-limited routing: experts in this many equal groups; 1: not limited", at_least(1),
            at_most(1 << 16));
    v.field(
        "chosen_groups", chosen_groups,
        "a token's experts come from its best so many groups, by their best expert (softmax, DeepSeek-V2) "
        "or their best two (sigmoid, DeepSeek-V3)",
        at_least(1), at_most(1 << 16));
    v.field("balance_bias", balance_bias,
            "loss-free balancing: experts are chosen by score plus a bias that each step moves towards even "
            "loads (arXiv 2408.15664)");
    v.field("balance_bias_rate", balance_bias_rate, "how far balance_bias moves in a step; 0: it stays",
            at_least(0.0));
    v.field("drop", drop, "which tokens an overfull expert drops in training; none: dropless");
    v.field("slot_order", slot_order, "order of an expert's rows: all first choices first, or by token");
    v.field("capacity_rule", capacity_rule,
            "rows per expert: tokens / experts x capacity_factor, with or without x top_k");
    v.field("capacity_factor", capacity_factor, "in training", above(0.0));
    v.field("eval_capacity_factor", eval_capacity_factor, "in evaluation, dropping by position; 0: no drops",
            at_least(0.0));
    v.field("min_capacity", min_capacity, "rows per expert at least", at_least(0), at_most(1 << 30));
    v.field("group_tokens", group_tokens,
            "capacity is counted in groups of this many tokens (OpenMoE: 4096); 0: in the micro-batch",
            unit::tokens, at_least(0), at_most(1 << 30));
    v.field("renormalise", renormalise,
            "divide the weights by their sum over the chosen or surviving experts");
    v.field("choice_noise", choice_noise,
            "Gumbel noise on the choice: rsample for top-1, second_expert for top-2");
    v.field("jitter", jitter, "the router's input is multiplied by U(1 - jitter, 1 + jitter)", at_least(0.0),
            below(1.0));
    v.field("balance_count", balance_count, "choices counted by the balancing loss");
    v.field("balance_scope", balance_scope, "tokens over which the balancing loss takes its fractions");
    v.field("balance_coefficient", balance_coefficient, "weight of each layer's balancing loss",
            at_least(0.0));
    v.field("z_coefficient", z_coefficient, "weight of each layer's router z-loss", at_least(0.0));
    v.field("identical_experts", identical_experts,
            "all experts of a layer start with the same values, as in the paper's code");
    v.field("expert_hidden", expert_hidden, "inner width of an expert; 0: model.ffn_hidden", at_least(0),
            at_most(1 << 24));
    v.field("residual_hidden", residual_hidden,
            "inner width of the MLP beside a residual layer's experts; 0: model.ffn_hidden", at_least(0),
            at_most(1 << 24));
    v.field("residual_mix", residual_mix, "how a residual layer joins its experts and its MLP");
    v.field("router_init_std", router_init_std,
            "of the router's weights; 0: uniform, as torch.nn.Linear (OpenMoE: 0.02)", at_least(0.0));
    v.field("coefficient_bias", coefficient_bias, "bias in the linear layer of a softmax or sigmoid mix");
  }
};

// Throws Error(config): the global-batch balancing loss depends on the layout by definition, so strict mode
// refuses it.
void check_strict(const MoeConfig& config);

}  // namespace ziggurat::moe
