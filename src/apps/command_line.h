#pragma once

#include <CLI/CLI.hpp>

namespace ziggurat::apps {

// Adds every sub-command but `data`. Parsing only fills in arguments; the work runs in the callbacks.
void add_commands(CLI::App& app);

}  // namespace ziggurat::apps
