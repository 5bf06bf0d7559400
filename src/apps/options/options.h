// The options of each sub-command: they fill in the arguments (apps/commands.h), the callback does the work.
#pragma once

#include <CLI/App.hpp>

namespace ziggurat::apps {

// training.cpp
void add_train(CLI::App& app);
void add_plan(CLI::App& app);
void add_verify(CLI::App& app);
void add_replay(CLI::App& app);

// config.cpp
void add_config(CLI::App& app);

// writing.cpp
void add_generate(CLI::App& app);
void add_eval(CLI::App& app);
void add_serve(CLI::App& app);
void add_logits(CLI::App& app);

// models.cpp
void add_export(CLI::App& app);
void add_import(CLI::App& app);
void add_checkpoint(CLI::App& app);

// bench.cpp
void add_bench(CLI::App& app);

// looking.cpp
void add_report(CLI::App& app);
void add_analyse(CLI::App& app);
void add_top(CLI::App& app);
void add_doctor(CLI::App& app);
void add_pages(CLI::App& app);

}  // namespace ziggurat::apps
