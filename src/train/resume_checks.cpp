#include "train/resume_checks.h"

#include <algorithm>
#include <set>

#include <ziggurat/config/config.h>
#include <ziggurat/core/log.h>
#include <ziggurat/model/same_model.h>
#include <ziggurat/optim/rules.h>

namespace ziggurat::train {

namespace {

RunConfig config_of(const CheckpointReader& checkpoint) {
  RunConfig config;
  parse_config(config, checkpoint.manifest().config, checkpoint.path());
  return config;
}

// "a, b, c and 7 more"
std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kShown = 8;
  const size_t shown = std::min(kShown, names.size());
  std::string text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<ptrdiff_t>(shown), ", "));
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

struct Tensors {
  std::vector<std::string> missing, unused;
};

// A parameter that is told needs no word about its moments.
void leave_out_moments(std::vector<std::string>& names) {
  const std::set<std::string> told(names.begin(), names.end());
  std::erase_if(names, [&](const std::string& name) { return is_moment_of(name, told); });
}

bool is_average(const std::string& name) { return name.starts_with(std::string(kAverage) + "."); }

// An average of the weights may begin and end with any step: training does not depend on it.
Tensors compare(const CheckpointReader& checkpoint, const std::vector<SavedParameter>& parameters) {
  const std::vector<std::string> names = checkpoint.names();
  const std::set<std::string> saved(names.begin(), names.end());
  const bool averages = holds_average(checkpoint);
  const bool begins = checkpoint.manifest().step == 0;
  std::set<std::string> wanted;
  Tensors result;
  const auto want = [&](const std::string& name, bool needed) {
    wanted.insert(name);
    if (needed && !saved.contains(name)) result.missing.push_back(name);
  };
  for (const SavedParameter& parameter : parameters) {
    want(parameter.name, true);
    for (const std::string& moment : parameter.moments) {
      want(moment, !begins && (averages || !is_average(moment)));
    }
  }
  for (const std::string& name : saved) {
    const bool may_go = is_average(name) || (begins && is_moment_of(name, saved));
    if (!wanted.contains(name) && !may_go) result.unused.push_back(name);
  }
  leave_out_moments(result.missing);
  leave_out_moments(result.unused);
  return result;
}

std::string tokenizer_of(const CheckpointReader& checkpoint) {
  return checkpoint.manifest().state.value("tokenizer", "");
}

bool other_tokenizer(const CheckpointReader& checkpoint, const SampleSource& data) {
  const std::string before = tokenizer_of(checkpoint), now = data.tokenizer_sha256();
  return !before.empty() && !now.empty() && before != now;
}

void check_model(const CheckpointReader& checkpoint, const RunConfig& config, const SampleSource& data,
                 const Tensors& tensors) {
  std::string lines;
  const RunConfig before = config_of(checkpoint);
  const bool was_f64 = before.precision == Precision::fp64, is_f64 = config.precision == Precision::fp64;
  check(was_f64 == is_f64, ErrorKind::config,
        "{}: was trained with precision {}, the config says {}: fp64 keeps other weights than fp32 and bf16; "
        "restore the precision, or start afresh with another output folder or checkpoint.resume=never",
        checkpoint.path(), enum_text(before.precision), enum_text(config.precision));
  for (const ConfigDifference& d : model::model_differences(before.model, config.model)) {
    lines += fmt::format("\n  {}: {} -> {}", d.key, d.before, d.after);
  }
  if (other_tokenizer(checkpoint, data)) {
    lines += fmt::format("\n  tokenizer of the data: {:.12} -> {:.12}", tokenizer_of(checkpoint),
                         data.tokenizer_sha256());
  }
  if (!tensors.missing.empty()) lines += "\n  tensors that are not in it: " + listed(tensors.missing);
  if (!tensors.unused.empty()) lines += "\n  tensors that the model does not use: " + listed(tensors.unused);
  if (lines.empty()) return;
  check(config.checkpoint.allow_model_changes, ErrorKind::config,
        "{}: holds another model than the config describes now:{}\nRestore the config, choose another "
        "output, {}",
        checkpoint.path(), lines,
        tensors.missing.empty()
            ? "begin anew with checkpoint.resume=never, or allow it with checkpoint.allow_model_changes=true"
            : "or begin anew with checkpoint.resume=never; no key makes up tensors that it does not hold, of "
              "other "
              "layers or another optimizer.kind");
  check(tensors.missing.empty(), ErrorKind::checkpoint,
        "{}: the model needs tensors that it does not hold: {}; no key allows that", checkpoint.path(),
        listed(tensors.missing));
  warn("{}: resumed with another model, as checkpoint.allow_model_changes says:{}", checkpoint.path(), lines);
}

// What decides how far a step goes and which samples it sees; how they are stored and shared does not.
bool is_of_schedule(const std::string& key) {
  const bool stored = key == "optimizer.moments" || key == "optimizer.masters" || key == "optimizer.average";
  return (key.starts_with("optimizer.") && !stored) || key.starts_with("objective.") ||
         key.starts_with("distil.weight.") || key == "distil.temperature" ||
         key.starts_with("batch.rampup") || key == "batch.global_batch" || key == "model.mup_base_hidden" ||
         key == "batch.sequence_length";
}

// A starting point from elsewhere was not trained by any.
void check_schedule(const CheckpointReader& checkpoint, const RunConfig& config) {
  if (config.checkpoint.allow_schedule_changes || checkpoint.manifest().step == 0) return;
  std::string lines;
  for (const ConfigDifference& d : config_diff(config_of(checkpoint), config)) {
    if (is_of_schedule(d.key)) lines += fmt::format("\n  {}: {} -> {}", d.key, d.before, d.after);
  }
  check(
      lines.empty(), ErrorKind::config,
      "{}: was trained by another schedule than the config describes now:{}\nRestore the config, or go on by "
      "the new one with checkpoint.allow_schedule_changes=true",
      checkpoint.path(), lines);
}

}  // namespace

bool holds_average(const CheckpointReader& checkpoint) {
  const std::vector<std::string> names = checkpoint.names();
  return std::any_of(names.begin(), names.end(), is_average);
}

bool is_moment_of(const std::string& name, const std::set<std::string>& parameters) {
  const size_t dot = name.find('.', name.find('.') + 1);
  return dot != std::string::npos && parameters.contains(name.substr(dot + 1));
}

std::vector<SavedParameter> saved_parameters(const OptimizerState& state) {
  std::vector<SavedParameter> all;
  for (const nn::ParamEntry& entry : state.store().entries()) {
    SavedParameter& parameter = all.emplace_back(entry.spec.name);
    for (const OptimizerState::Moment& moment : state.moments(entry)) {
      parameter.moments.push_back(saved_name(moment.name, entry.spec.name));
    }
  }
  return all;
}

void check_resumable(const CheckpointReader& checkpoint, const RunConfig& config, const SampleSource& data,
                     const std::vector<SavedParameter>& parameters) {
  const nlohmann::json& state = checkpoint.manifest().state;
  check_model(checkpoint, config, data, compare(checkpoint, parameters));
  // With another tokenizer, which the line above refused or allowed, the data are others too. A starting
  // point from elsewhere has seen no data, and any seed will do.
  const auto changed = other_tokenizer(checkpoint, data)
                           ? std::nullopt
                           : first_difference(state.value("data", data.fingerprint()), data.fingerprint());
  check(!changed, ErrorKind::checkpoint,
        "{}: was trained on other data, or in another order, than the config gives now. The first "
        "difference: {}. Restore the data, or start afresh with another output folder or "
        "checkpoint.resume=never",
        checkpoint.path(), changed.value_or(""));
  const int64_t seed = state.value("seed", config.seed);
  check(seed == config.seed, ErrorKind::checkpoint,
        "{}: was trained with seed {}, the config says {}; restore the seed, or start afresh with another "
        "output "
        "folder or checkpoint.resume=never",
        checkpoint.path(), seed, config.seed);
  check_schedule(checkpoint, config);
}

void tell_changes(const CheckpointReader& checkpoint, const RunConfig& config) {
  for (const ConfigDifference& d : config_diff(config_of(checkpoint), config)) {
    const bool told = d.key == "train.tokens" || d.key.starts_with("model.") ||
                      d.key.starts_with("checkpoint.") || d.key == "output";
    if (!told) warn("changed since the checkpoint: {}: {} -> {}", d.key, d.before, d.after);
  }
}

}  // namespace ziggurat::train
