// ziggurat config dump|check|explain|schema|help
#include <algorithm>

#include "apps/commands.h"
#include <ziggurat/config/explain.h>
#include <ziggurat/plan/cluster.h>
#include <ziggurat/train/derived_figures.h>
#include <ziggurat/train/key_notes.h>
#include <ziggurat/train/review.h>

namespace ziggurat::apps {

void config_dump(const ConfigArguments& config, bool changed_only) {
  train::RunConfig run;
  load_config(run, config.path, config.overrides);
  fmt::print("{}", dump_config(run, changed_only ? DumpMode::changed : DumpMode::full));
}

void config_check(const ConfigArguments& config) {
  train::RunConfig run;
  load_config(run, config.path, config.overrides);
  train::check_trainable(run);
  for (const std::string& path : train::check_present_data(run)) {
    fmt::print("note: {} is not on this machine, so it was not looked at\n", path);
  }
  const std::vector<train::Warning> warnings = train::warnings_of(run);
  for (const train::Warning& warning : warnings) fmt::print("warning: {}\n", train::to_string(warning));
  fmt::print("{}: ok{}\n", config.path,
             warnings.empty() ? "" : fmt::format(" (warnings: {})", warnings.size()));
}

void config_schema(bool of_cluster) {
  fmt::print("{}\n", of_cluster ? ziggurat::config_schema<ClusterConfig>()
                                : ziggurat::config_schema<train::RunConfig>());
}

void config_help(const std::string& key, bool of_cluster) {
  if (of_cluster) {
    return fmt::print("{}",
                      key.empty() ? ziggurat::config_help<ClusterConfig>() : key_help<ClusterConfig>(key));
  }
  if (key.empty()) return fmt::print("{}", ziggurat::config_help<train::RunConfig>());
  fmt::print("{}{}", key_help<train::RunConfig>(key), train::note_of_key(key_in_lists(key)));
}

void config_explain(const ConfigArguments& config, int ranks) {
  train::RunConfig run;
  const std::vector<ValueOrigin> origins = explain_config(run, config.path, config.overrides);
  size_t keys = 0, values = 0;
  for (const ValueOrigin& origin : origins) {
    keys = std::max(keys, origin.key.size());
    values = std::clamp(origin.value.size(), values, size_t{24});
  }
  for (const ValueOrigin& origin : origins) {
    std::string from = origin.place.empty() ? "default" : origin.place;
    for (const std::string& place : origin.covered) from += ", instead of " + place;
    fmt::print("{:{}}  {:{}}  {}\n", origin.key, keys, origin.value, values, from);
  }
  fmt::print("\n");
  for (const auto& [what, figure] : train::derived_figures(run, ranks)) {
    fmt::print("{:{}}  {}\n", what, keys, figure);
  }
}

}  // namespace ziggurat::apps
