// ziggurat config dump|check|schema|help
#include "apps/commands.h"
#include <ziggurat/config/config.h>
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

void config_schema() { fmt::print("{}\n", ziggurat::config_schema<train::RunConfig>()); }

void config_help() { fmt::print("{}", ziggurat::config_help<train::RunConfig>()); }

}  // namespace ziggurat::apps
