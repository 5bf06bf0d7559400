// ziggurat: arguments, and the one place where an error becomes an exit code.
#include <cstdio>

#include <data_tools/commands.h>

#include "apps/commands.h"
#include <ziggurat/build_config.h>
#include <ziggurat/core/error.h>

int main(int argc, char** argv) {
  using namespace ziggurat;
  CLI::App app{"Ziggurat: trains dense, MoE and PR-MoE GPT models from YAML files", "ziggurat"};
  app.set_version_flag("--version", fmt::format("ziggurat {} ({})", kVersion, kBuildType));
  app.require_subcommand(1);
  apps::add_train(app);
  apps::add_plan(app);
  apps::add_config(app);
  apps::add_generate(app);
  apps::add_bench(app);
  add_data_commands(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : exit_code(ErrorKind::config);
  } catch (const Error& error) {
    std::fprintf(stderr, "ziggurat: %s error:\n%s\n", to_string(error.kind()), error.what());
    return exit_code(error.kind());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ziggurat: %s\n", error.what());
    return exit_code(ErrorKind::internal);
  }
}
