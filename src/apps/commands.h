// The sub-commands of the binary. Each adds itself to the command line; its callback does the work and throws
// Error.
#pragma once

#include <CLI/CLI.hpp>

namespace ziggurat::apps {

void add_train(CLI::App& app);
void add_plan(CLI::App& app);
void add_config(CLI::App& app);
void add_generate(CLI::App& app);
void add_bench(CLI::App& app);

}  // namespace ziggurat::apps
