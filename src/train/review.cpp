#include <array>
#include <cmath>
#include <map>

#include <ziggurat/config/config.h>
#include <ziggurat/data/sample_source.h>
#include <ziggurat/model/parameter_shapes.h>
#include <ziggurat/optim/clip_groups.h>
#include <ziggurat/optim/schedule.h>
#include <ziggurat/train/review.h>
#include <ziggurat/train/step_plan.h>
#include <ziggurat/train/teacher.h>

namespace ziggurat::train {

namespace {

using model::FfnKind;
using model::Positions;
using moe::DropPolicy;
using Config = const RunConfig&;

// A value that somebody set and that nothing reads.
struct Unused {
  const char* key;  // of a value, or of a struct: then of everything below it
  bool (*when)(Config);
  const char* why;
  const char* cure;
};

bool decays(Config c) {
  const LrScheduleKind schedule = c.optimizer.schedule;
  return schedule != LrScheduleKind::constant && schedule != LrScheduleKind::rsqrt &&
         schedule != LrScheduleKind::flat_rsqrt;
}
bool all_synthetic(Config c) {
  for (const Split split : {Split::train, Split::valid, Split::test}) {
    if (has_data(c.data, split) && !is_synthetic(c.data, split)) return false;
  }
  return true;
}
bool validates(Config c) { return has_data(c.data, Split::valid) && c.eval.sequences > 0; }
bool drops_nothing(Config c) { return c.model.moe.drop == DropPolicy::none; }
bool has_no_ramp(Config c) {
  return !c.batch.rampup.enabled() || c.batch.rampup.start == c.batch.global_batch;
}
bool ignores_slots(Config c) {
  const moe::MoeConfig& m = c.model.moe;
  return m.top_k == 1 || (m.drop != DropPolicy::position && m.eval_capacity_factor == 0);
}

constexpr const char* kRemove = "remove it";
constexpr const char* kDropless = "moe.drop none lets every expert take all tokens that chose it";
constexpr const char* kChooseDrop = "remove it, or choose how tokens are dropped with model.moe.drop";
constexpr const char* kNoSpikes = "guard.spike off looks for no spikes";
constexpr const char* kWatchSpikes = "remove it, or set guard.spike=skip";
constexpr const char* kNoRamp =
    "without a batch.rampup.start below batch.global_batch the batch does not grow";
constexpr const char* kStart = "remove it, or set batch.rampup.start";
constexpr const char* kNoBalance = "moe.balance_coefficient 0 leaves the balancing loss out";
constexpr const char* kSynthetic = "the synthetic language needs no shards and has an order of its own";

// Of a key the first row that fits counts.
constexpr auto kUnused = std::to_array<Unused>({
    {"model.moe", [](Config c) { return !c.model.has_experts(); }, "no layer of the model has experts",
     "remove it, or give model.blocks a moe or residual_moe layer"},
    {"model.moe.residual_mix", [](Config c) { return !c.model.has(FfnKind::residual_moe); },
     "no layer of the model is residual_moe", kRemove},
    {"model.moe.residual_hidden", [](Config c) { return !c.model.has(FfnKind::residual_moe); },
     "no layer of the model is residual_moe", kRemove},
    {"model.moe.coefficient_bias", [](Config c) { return !c.model.has(FfnKind::residual_moe); },
     "no layer of the model is residual_moe", kRemove},
    {"model.moe.coefficient_bias", [](Config c) { return !c.model.moe.has_coefficients(); },
     "moe.residual_mix sum and sequential have no coefficients", kRemove},
    {"model.moe.balance_bias_rate", [](Config c) { return !c.model.moe.balance_bias; },
     "only moe.balance_bias moves by it", "remove it, or set model.moe.balance_bias=true"},
    {"model.moe.chosen_groups", [](Config c) { return c.model.moe.expert_groups == 1; },
     "moe.expert_groups 1 is all experts", "remove it, or set model.moe.expert_groups"},
    {"model.moe.group_tokens",
     [](Config c) { return drops_nothing(c) && c.model.moe.balance_scope != moe::BalanceScope::group; },
     kDropless, kChooseDrop},
    {"data.ul2.bidirectional", [](Config c) { return !c.data.ul2.enabled(); }, "data.ul2.until is 0",
     "remove it, or set data.ul2.until"},
    {"data.ul2.sentinels", [](Config c) { return !c.data.ul2.enabled(); }, "data.ul2.until is 0",
     "remove it, or set data.ul2.until"},
    {"model.window", [](Config c) { return c.model.window >= c.model.max_sequence; },
     "no sequence is longer than model.max_sequence", "remove it, or make it shorter"},
    {"model.init_scale", [](Config c) { return c.model.init != model::InitRule::variance_scaling; },
     "only model.init variance_scaling reads it", "remove it, or set model.init=variance_scaling"},
    {"model.moe.capacity_factor", drops_nothing, kDropless, kChooseDrop},
    {"model.moe.eval_capacity_factor", drops_nothing, kDropless, kChooseDrop},
    {"model.moe.min_capacity", drops_nothing, kDropless, kChooseDrop},
    {"model.moe.capacity_rule", drops_nothing, kDropless, kChooseDrop},
    {"model.moe.slot_order", drops_nothing, kDropless, kChooseDrop},
    {"model.moe.slot_order", ignores_slots,
     "only dropping by position goes by it, and only where a token has several choices", kRemove},
    {"model.moe.balance_count", [](Config c) { return c.model.moe.top_k == 1; },
     "with moe.top_k 1 a token has one choice", kRemove},
    {"model.moe.balance_count", [](Config c) { return c.model.moe.balance_coefficient == 0; }, kNoBalance,
     kRemove},
    {"model.moe.balance_scope", [](Config c) { return c.model.moe.balance_coefficient == 0; }, kNoBalance,
     kRemove},
    {"parallel.expert_tensor", [](Config c) { return !c.model.has_experts(); },
     "no layer of the model has experts", kRemove},
    {"parallel.all_to_all", [](Config c) { return !c.model.has_experts(); },
     "no layer of the model has experts, which exchange tokens by all-to-alls", kRemove},
    {"model.rope_theta", [](Config c) { return c.model.positions != Positions::rope; },
     "learned positions are not rotated", "remove it, or set model.positions=rope"},
    {"distil", [](Config c) { return !c.distil.enabled(); }, "distil.teacher names no teacher",
     "remove it, or set distil.teacher"},
    {"optimizer.min_lr", [](Config c) { return c.optimizer.schedule == LrScheduleKind::constant; },
     "optimizer.schedule constant stays at lr", "remove it, or choose another schedule"},
    {"optimizer.decay_tokens", [](Config c) { return !decays(c); },
     "optimizer.schedule constant and rsqrt have no end", "remove it, or choose another schedule"},
    {"optimizer.wsd_decay_tokens", [](Config c) { return c.optimizer.schedule != LrScheduleKind::wsd; },
     "only optimizer.schedule wsd reads it", "remove it, or set optimizer.schedule=wsd"},
    {"optimizer.masters", [](Config c) { return c.precision != Precision::bf16; },
     "only precision bf16 has masters beside its weights", "remove it, or set precision=bf16"},
    {"batch.rampup.increment", has_no_ramp, kNoRamp, kStart},
    {"batch.rampup.samples", has_no_ramp, kNoRamp, kStart},
    {"batch.lanes", [](Config c) { return c.reproducible != Reproducible::strict; },
     "only reproducible strict sums gradients in lanes", "remove it, or set reproducible=strict"},
    {"checkpoint.keep_every", [](Config c) { return c.checkpoint.keep == 0; }, "checkpoint.keep 0 keeps all",
     kRemove},
    {"guard.spike_sigma", [](Config c) { return c.guard.spike == OnSpike::off; }, kNoSpikes, kWatchSpikes},
    {"guard.spike_window", [](Config c) { return c.guard.spike == OnSpike::off; }, kNoSpikes, kWatchSpikes},
    {"guard.skip_limit",
     [](Config c) { return c.guard.spike == OnSpike::off && c.guard.non_finite == OnNonFinite::stop; },
     "nothing is skipped", "remove it, or set guard.non_finite=skip or guard.spike"},
    {"train.graphs", [](Config c) { return c.device == Device::cpu; },
     "a CPU's kernels run when they are called", "remove it, or set device=cuda"},
    {"data.order", [](Config c) { return is_synthetic(c.data, Split::train); }, kSynthetic, kRemove},
    {"data.shuffle", [](Config c) { return is_synthetic(c.data, Split::train); }, kSynthetic, kRemove},
    {"data.seed", [](Config c) { return !c.data.shuffle && !all_synthetic(c); },
     "data.shuffle false reads the samples in order", "remove it, or set data.shuffle=true"},
    {"data.verify_below", all_synthetic, kSynthetic, kRemove},
    {"data.tokenizer", all_synthetic, "the synthetic language is no text", kRemove},
    {"data.valid", [](Config c) { return c.eval.sequences == 0; }, "eval.sequences 0 evaluates nothing",
     "remove it, or set eval.sequences"},
    {"data.test", [](Config c) { return c.eval.sequences == 0; }, "eval.sequences 0 evaluates nothing",
     "remove it, or set eval.sequences"},
    {"eval.sequences",
     [](Config c) {
       const bool data = has_data(c.data, Split::valid) || has_data(c.data, Split::test);
       return c.eval.sequences > 0 && !data;
     },
     "there are no data to evaluate on", "remove it, or name some in data.valid"},
    {"eval.every", [](Config c) { return c.eval.every > 0 && !validates(c); }, "there is no validation",
     "remove it, or name data in data.valid and set eval.sequences"},
    {"eval.samples_every", [](Config c) { return c.eval.prompts.empty(); },
     "without eval.prompts there is nothing to go on from", "remove it, or set eval.prompts"},
});

// A value that does something, but hardly what somebody wants. `why` is empty where all is well.
struct Odd {
  const char* key;
  bool even_if_default;
  std::string (*why)(Config);
  const char* cure;
};

double in_fp32(Config c, double value) {
  return c.precision == Precision::fp64 ? value : static_cast<double>(static_cast<float>(value));
}
int64_t tokens_of_run(Config c) { return samples_of_run(c) * c.batch.sequence_length; }
std::string last_rate(Config c) {
  return fmt::format("the learning rate ends at {:.2g}", learning_rate(c.optimizer, tokens_of_run(c)));
}
std::string longer_than_run(Config c, int64_t every, const char* then) {
  const int64_t steps = total_steps(c);
  return every > steps ? fmt::format("the run has {} steps: {}", steps, then) : "";
}
bool is_one_file(const std::string& path) { return path.ends_with(".h5") || path.ends_with(".json"); }

constexpr auto kOdd = std::to_array<Odd>({
    {"optimizer.warmup_tokens", true,
     [](Config c) {
       if (c.optimizer.warmup_tokens < tokens_of_run(c)) return std::string();
       return fmt::format("the warm-up is no shorter than the run: {}, of optimizer.lr {:.2g}", last_rate(c),
                          c.optimizer.lr);
     },
     "about a hundredth of train.tokens is usual"},
    {"optimizer.decay_tokens", true,
     [](Config c) {
       if (!decays(c) || c.optimizer.decay_tokens <= tokens_of_run(c)) return std::string();
       return fmt::format(
           "the run ends before the decay does: {}, and optimizer.min_lr {:.2g} is not reached", last_rate(c),
           c.optimizer.min_lr);
     },
     "set it to train.tokens, unless the run is to go on later"},
    {"batch.rampup.samples", true,
     [](Config c) {
       const int64_t samples = samples_of_run(c);
       if (has_no_ramp(c) || c.batch.rampup.samples < samples) return std::string();
       return fmt::format("the run has {} samples: batch.global_batch {} is not reached", samples,
                          c.batch.global_batch);
     },
     "let the ramp-up end earlier"},
    {"distil.weight.until", false,
     [](Config c) {
       const bool ends = c.distil.weight.until < tokens_of_run(c);
       return c.distil.enabled() && !ends
                  ? std::string("the run ends before: the teacher counts in full to its end")
                  : std::string();
     },
     "set it to 0 to say so, or lower it: a teacher helps early and hurts late (DeepSpeed-MoE, section 4.2)"},
    {"model.moe.balance_scope", true,
     [](Config c) {
       const moe::MoeConfig& m = c.model.moe;
       const bool read = c.model.has_experts() && m.balance_coefficient > 0;
       if (!read || m.balance_scope != moe::BalanceScope::global_batch) return std::string();
       return std::string(
           "counts the tokens that all ranks have seen in the step so far, so results depend on "
           "the number of ranks");
     },
     "start the run on as many ranks each time, or choose micro_batch or sequence"},
    {"parallel.zero", true,
     [](Config c) {
       const bool kept = c.parallel.zero == 2 && c.reproducible == Reproducible::strict;
       return kept ? std::string(
                         "reproducible strict keeps gradients whole, for a fixed order of sums: 2 is 1")
                   : std::string();
     },
     "set it to 1, or reproducible=layout"},
    {"model.moe.renormalise", true,
     [](Config c) {
       const moe::MoeConfig& m = c.model.moe;
       if (!c.model.has_experts() || m.top_k != 1 || m.renormalise == moe::Renormalise::none) {
         return std::string();
       }
       return std::string(
           "with moe.top_k 1 every weight becomes 1, so that only auxiliary losses train the "
           "router");
     },
     "set it to none, or raise moe.top_k"},
    {"model.moe.jitter", false,
     [](Config c) {
       const bool lost = c.model.has_experts() && in_fp32(c, 1 + c.model.moe.jitter) == 1;
       return lost ? std::string("1 + jitter is 1 in fp32: it changes nothing") : std::string();
     },
     "DeepSpeed and others take 0.01"},
    {"optimizer.weight_decay", true,
     [](Config c) {
       const double rate = c.optimizer.lr * c.optimizer.weight_decay;
       if (rate > 1) return fmt::format("lr x weight_decay is {:.2g}: a step turns the weights' signs", rate);
       const bool lost = rate > 0 && in_fp32(c, 1 - rate) == 1;
       return lost ? fmt::format("1 - lr x weight_decay is 1 in fp32 (lr {:.2g}): nothing decays",
                                 c.optimizer.lr)
                   : std::string();
     },
     "usual is 0.01 to 0.1; 0 turns it off"},
    {"data.valid", false,
     [](Config c) {
       const bool same = is_one_file(c.data.valid) && c.data.valid == c.data.train;
       return same ? std::string("validates on the training data") : std::string();
     },
     "name other shards"},
    {"checkpoint.keep_every", false,
     [](Config c) {
       const CheckpointConfig& k = c.checkpoint;
       const bool between = k.keep_every > 0 && k.every > 0 && k.keep_every % k.every != 0;
       return between
                  ? fmt::format("checkpoint.every is {}: only steps that are multiples of both stay", k.every)
                  : std::string();
     },
     "use a multiple of it"},
    {"checkpoint.every", false,
     [](Config c) {
       return longer_than_run(c, c.checkpoint.every, "the only checkpoint is that of its end");
     },
     "lower it"},
    {"eval.every", false,
     [](Config c) {
       return validates(c) ? longer_than_run(c, c.eval.every, "it is validated at its start and end only")
                           : "";
     },
     "lower it, or set it to 0 to say so"},
    {"log.every", false,
     [](Config c) { return longer_than_run(c, c.log.every, "only the first and the last have a line"); },
     "lower it"},
});

using Values = std::map<std::string, std::string>;

Values values_of(Config config) {
  Values values;
  for_each_value(config,
                 [&](const std::string& key, const Field& field) { values[key] = value_text(field); });
  return values;
}

bool covers(std::string_view rule, std::string_view key) {
  return key.starts_with(rule) && (key.size() == rule.size() || key[rule.size()] == '.');
}

}  // namespace

void check_trainable(const RunConfig& config) {
  check_config(config);
  if (!config.optimizer.clip_groups.empty()) {
    std::vector<std::string> names;
    for (auto& [name, shape] : model::parameter_shapes(config.model)) names.push_back(name);
    check_clip_groups(config.optimizer, names);
  }
  check(has_data(config.data, Split::train), ErrorKind::config,
        "data.train: expected training data, got nothing");
}

std::string to_string(const Warning& w) {
  return fmt::format("{} = {}: {}. Cure: {}", w.key, w.value, w.why, w.cure);
}

std::vector<Warning> warnings_of(const RunConfig& config) {
  const Values values = values_of(config), defaults = values_of(RunConfig{});
  const auto is_set = [&](const std::string& key) {
    const auto found = defaults.find(key);
    return found == defaults.end() || found->second != values.at(key);
  };
  std::vector<Warning> warnings;
  for (const auto& [key, value] : values) {
    if (!is_set(key)) continue;
    for (const Unused& rule : kUnused) {
      if (!covers(rule.key, key) || !rule.when(config)) continue;
      warnings.push_back({key, value, fmt::format("has no effect, as {}", rule.why), rule.cure});
      break;
    }
  }
  for (const Odd& rule : kOdd) {
    if (!rule.even_if_default && !is_set(rule.key)) continue;
    const std::string why = rule.why(config);
    if (!why.empty()) warnings.push_back({rule.key, values.at(rule.key), why, rule.cure});
  }
  return warnings;
}

std::vector<std::string> check_present_data(const RunConfig& config) {
  PresentData present = present_data(config.data);
  check_tokenizer(present.config, config.model.vocab_size);
  std::string tokenizer;
  for (const Split split : {Split::train, Split::valid, Split::test}) {
    const std::string its =
        check_samples(present.config, split, config.batch.sequence_length, config.model.vocab_size);
    if (split == Split::train) tokenizer = its;
  }
  if (config.distil.enabled() && !check_present_teacher(config, tokenizer)) {
    present.missing.push_back("distil.teacher: " + config.distil.teacher);
  }
  return present.missing;
}

}  // namespace ziggurat::train
