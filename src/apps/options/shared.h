// Options that several sub-commands have, with one name and one help.
#pragma once

#include <string>

#include <CLI/App.hpp>

#include "apps/commands.h"

namespace ziggurat::apps {

// A sub-command with a config and overrides of it.
CLI::App* add_config_command(CLI::App& parent, const char* name, const char* help,
                             ConfigArguments& arguments);

void add_threads(CLI::App& command, int& threads, const char* help);  // --threads
void add_average(CLI::App& command, bool& average);                   // --average
void add_weights(CLI::App& command, std::string& weights);            // --weights
void add_sharing(CLI::App& command, SharingArguments& sharing);       // --parallel and what belongs to it
void add_precision(CLI::App& command, std::string& precision);        // --precision
void add_device(CLI::App& command, Device& device);                   // --device

}  // namespace ziggurat::apps
