#include "train/resume_checks.h"

#include <algorithm>
#include <set>

#include <ziggurat/config/config.h>
#include <ziggurat/core/log.h>
#include <ziggurat/model/same_model.h>

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
  std::set<std::string> moments;
  for (const std::string& name : names) {
    const std::vector<std::string> saved = saved_names(name);
    moments.insert(saved.begin() + 1, saved.end());
  }
  std::erase_if(names, [&](const std::string& name) { return moments.contains(name); });
}

Tensors compare(const CheckpointReader& checkpoint, const std::vector<std::string>& parameters) {
  const std::vector<std::string> names = checkpoint.names();
  const std::set<std::string> saved(names.begin(), names.end());
  std::set<std::string> wanted;
  Tensors result;
  for (const std::string& parameter : parameters) {
    for (const std::string& name : saved_names(parameter)) {
      wanted.insert(name);
      if (!saved.contains(name)) result.missing.push_back(name);
    }
  }
  std::set_difference(saved.begin(), saved.end(), wanted.begin(), wanted.end(),
                      std::back_inserter(result.unused));
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
  check(
      config.checkpoint.allow_model_changes, ErrorKind::config,
      "{}: holds another model than the config describes now:{}\nRestore the config, choose another output, "
      "begin anew with checkpoint.resume=never, or allow it with checkpoint.allow_model_changes=true",
      checkpoint.path(), lines);
  check(tensors.missing.empty(), ErrorKind::checkpoint,
        "{}: the model needs tensors that it does not hold: {}; no key allows that", checkpoint.path(),
        listed(tensors.missing));
  warn("{}: resumed with another model, as checkpoint.allow_model_changes says:{}", checkpoint.path(), lines);
}

}  // namespace

std::vector<std::string> saved_names(const std::string& parameter) {
  return {parameter, "adam.m." + parameter, "adam.v." + parameter};
}

void check_resumable(const CheckpointReader& checkpoint, const RunConfig& config, const SampleSource& data,
                     const std::vector<std::string>& parameters) {
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
}

void tell_changes(const CheckpointReader& checkpoint, const RunConfig& config) {
  for (const ConfigDifference& d : config_diff(config_of(checkpoint), config)) {
    const bool told = d.key == "train.tokens" || d.key.starts_with("model.") ||
                      d.key.starts_with("checkpoint.") || d.key == "output";
    if (!told) warn("changed since the checkpoint: {}: {} -> {}", d.key, d.before, d.after);
  }
}

}  // namespace ziggurat::train
