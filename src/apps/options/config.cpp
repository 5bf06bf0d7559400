// Config files.
#include <memory>

#include "apps/commands.h"
#include "apps/options/options.h"
#include "apps/options/shared.h"
#include <ziggurat/config/option_values.h>

namespace ziggurat::apps {

void add_config(CLI::App& app) {
  CLI::App* config = app.add_subcommand("config", "Inspect config files");
  config->require_subcommand(1);
  auto arguments = std::make_shared<ConfigArguments>();
  auto changed_only = std::make_shared<bool>(false);
  CLI::App* dump = add_config_command(*config, "dump", "Print every value that a run would use", *arguments);
  dump->add_flag("--changed", *changed_only, "only values that differ from the defaults");
  dump->callback([arguments, changed_only] { config_dump(*arguments, *changed_only); });
  add_config_command(*config, "check", "Report every mistake of a config file", *arguments)
      ->callback([arguments] { config_check(*arguments); });
  config->add_subcommand("schema", "Print a JSON schema for editors")->callback(config_schema);
  auto ranks = std::make_shared<int>(0);
  CLI::App* explain = add_config_command(
      *config, "explain", "Print where every value of a run comes from, and what follows from them",
      *arguments);
  explain
      ->add_option("--ranks", *ranks,
                   "ranks for which figures are derived; default: the largest expert-parallel size")
      ->transform(whole_number(1, 1 << 24));
  explain->callback([arguments, ranks] { config_explain(*arguments, *ranks); });
  auto key = std::make_shared<std::string>();
  CLI::App* help = config->add_subcommand(
      "help", "Print every key with its unit, default and meaning, or all that is known of one");
  help->add_option("key", *key, "e.g. optimizer.lr; default: all keys, one a line");
  help->callback([key] { config_help(*key); });
}

}  // namespace ziggurat::apps
