// ziggurat config dump|check|schema|help
#include "apps/commands.h"
#include <ziggurat/config/config.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::apps {

void config_dump(const ConfigArguments& config, bool changed_only) {
  train::RunConfig run;
  load_config(run, config.path, config.overrides);
  fmt::print("{}", dump_config(run, changed_only ? DumpMode::changed : DumpMode::full));
}

void config_check(const ConfigArguments& config) {
  train::RunConfig run;
  load_config(run, config.path, config.overrides);
  fmt::print("{}: ok\n", config.path);
}

void config_schema() { fmt::print("{}\n", ziggurat::config_schema<train::RunConfig>()); }

void config_help() { fmt::print("{}", ziggurat::config_help<train::RunConfig>()); }

}  // namespace ziggurat::apps
