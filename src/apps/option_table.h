// What the command line knows of itself, read back from CLI11: the one source of the manual pages and of
// completion.
#pragma once

#include <string>
#include <vector>

#include <CLI/App.hpp>

namespace ziggurat::apps {

struct OptionRow {
  std::vector<std::string> names;    // -h, --help; of a positional argument: its name alone
  std::string type;                  // of its value, TEXT, INT, FLOAT; "" for a flag
  std::vector<std::string> choices;  // the words that it may be; empty: anything of that type
  std::string initial;               // value where it is not given; may be ""
  std::string help;
  bool required = false, repeatable = false;
};

struct CommandRow {
  std::string name;  // data tokenize; "" for the program itself
  std::string help;
  std::vector<OptionRow> options, positionals;
  std::vector<CommandRow> commands;
};

// Without what is hidden (of group "").
CommandRow read_command(const CLI::App& app, const std::string& name = "");

// What begins the files of a prefix: man1/*.1, bash-completion/completions/ziggurat,
// zsh/site-functions/_ziggurat.
struct Page {
  std::string path, text;
};
std::vector<Page> manual_pages(const CommandRow& program);
Page bash_completion(const CommandRow& program, const std::vector<std::string>& config_keys);
Page zsh_completion(const CommandRow& program, const std::vector<std::string>& config_keys);

// All of them, below a folder.
void write_pages(const CLI::App& app, const std::string& folder);

}  // namespace ziggurat::apps
