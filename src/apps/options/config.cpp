// Config files.
#include <memory>

#include "apps/commands.h"
#include "apps/options/options.h"
#include "apps/options/shared.h"
#include <ziggurat/config/option_values.h>

namespace ziggurat::apps {
namespace {

void add_of_cluster(CLI::App& command, bool& of_cluster) {
  command.add_flag("--cluster", of_cluster,
                   "of a cluster, as plan --simulate and --serve read it, not of a run");
}

}  // namespace

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
  auto of_cluster = std::make_shared<bool>(false);
  CLI::App* schema = config->add_subcommand("schema", "Print a JSON schema for editors");
  add_of_cluster(*schema, *of_cluster);
  schema->callback([of_cluster] { config_schema(*of_cluster); });
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
  add_of_cluster(*help, *of_cluster);
  help->callback([key, of_cluster] { config_help(*key, *of_cluster); });
}

}  // namespace ziggurat::apps
