// The command line of `ziggurat data ...`.
#pragma once

#include <CLI/CLI.hpp>

namespace ziggurat {

// Adds `data` and its sub-commands. Parsing only fills in options; the work runs in the sub-command's
// callback and throws ziggurat::Error.
void add_data_commands(CLI::App& app);

}  // namespace ziggurat
