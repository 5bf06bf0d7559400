#include "apps/option_table.h"

#include <sstream>

#include <CLI/Option.hpp>

namespace ziggurat::apps {

namespace {

// CLI11 writes "TEXT:{a,b}".
void split_type(const std::string& written, OptionRow& row) {
  const size_t colon = written.find(":{");
  row.type = written.substr(0, colon);
  if (colon == std::string::npos) return;
  std::istringstream words(written.substr(colon + 2, written.rfind('}') - colon - 2));
  for (std::string word; std::getline(words, word, ',');) row.choices.push_back(word);
}

OptionRow read_option(const CLI::Option& option) {
  OptionRow row;
  for (const std::string& name : option.get_snames()) row.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) row.names.push_back("--" + name);
  if (row.names.empty()) row.names.push_back(option.get_name());
  if (option.get_items_expected_max() != 0) split_type(option.get_type_name(), row);
  row.initial = option.get_default_str();
  row.help = option.get_description();
  row.required = option.get_required();
  row.repeatable = option.get_items_expected_max() > 1;
  return row;
}

}  // namespace

CommandRow read_command(const CLI::App& app, const std::string& name) {
  CommandRow row;
  row.name = name;
  row.help = app.get_description();
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;
    (option->nonpositional() ? row.options : row.positionals).push_back(read_option(*option));
  }
  for (const CLI::App* command : app.get_subcommands(nullptr)) {
    if (command->get_group().empty()) continue;
    row.commands.push_back(read_command(*command, name + (name.empty() ? "" : " ") + command->get_name()));
  }
  return row;
}

}  // namespace ziggurat::apps
