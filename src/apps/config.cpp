// ziggurat config dump|check|schema|help
#include <cstdio>
#include <memory>

#include "apps/commands.h"
#include <ziggurat/config/config.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::apps {

namespace {
struct Arguments {
  std::string path;
  std::vector<std::string> overrides;
  bool changed_only = false;
};

CLI::App* add_reader(CLI::App& parent, const char* name, const char* help,
                     const std::shared_ptr<Arguments>& arguments) {
  CLI::App* command = parent.add_subcommand(name, help);
  command->add_option("config", arguments->path, "YAML file")->required();
  command->add_option("overrides", arguments->overrides, "key=value, e.g. optimizer.lr=1e-4");
  return command;
}
}  // namespace

void add_config(CLI::App& app) {
  CLI::App* config = app.add_subcommand("config", "Inspect config files");
  config->require_subcommand(1);
  auto arguments = std::make_shared<Arguments>();

  CLI::App* dump = add_reader(*config, "dump", "Print every value that a run would use", arguments);
  dump->add_flag("--changed", arguments->changed_only, "only values that differ from the defaults");
  dump->callback([arguments] {
    train::RunConfig run;
    load_config(run, arguments->path, arguments->overrides);
    std::fputs(dump_config(run, arguments->changed_only ? DumpMode::changed : DumpMode::full).c_str(),
               stdout);
  });
  add_reader(*config, "check", "Report every mistake of a config file", arguments)->callback([arguments] {
    train::RunConfig run;
    load_config(run, arguments->path, arguments->overrides);
    std::printf("%s: ok\n", arguments->path.c_str());
  });
  config->add_subcommand("schema", "Print a JSON schema for editors")->callback([] {
    std::printf("%s\n", config_schema<train::RunConfig>().c_str());
  });
  config->add_subcommand("help", "Print every key with its unit, default and meaning")->callback([] {
    std::fputs(config_help<train::RunConfig>().c_str(), stdout);
  });
}

}  // namespace ziggurat::apps
