// The option tables as completion for bash and zsh.
//
// What a shell offers: sub-commands; after a dash, options; after an option, its words, or files where it
// takes text; as arguments, files, and after the first one, where a command takes key=value, the keys of a
// config.
#include <algorithm>
#include <functional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "apps/option_table.h"

namespace ziggurat::apps {

namespace {

bool takes_config_keys(const CommandRow& command) {
  return std::any_of(command.positionals.begin(), command.positionals.end(),
                     [](const OptionRow& row) { return row.names[0] == "overrides"; });
}

void for_each_command(const CommandRow& command, const std::function<void(const CommandRow&)>& visit) {
  visit(command);
  for (const CommandRow& below : command.commands) for_each_command(below, visit);
}

std::string joined(const std::vector<std::string>& words) { return fmt::format("{}", fmt::join(words, " ")); }

std::string last_word(const std::string& name) { return name.substr(name.rfind(' ') + 1); }

// ---- zsh ----

std::string underscored(std::string name) {
  std::replace(name.begin(), name.end(), ' ', '_');
  return name.empty() ? "_ziggurat" : "_ziggurat_" + name;
}

// Of a description inside single quotes, where zsh gives brackets and colons a meaning.
std::string zsh_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out;
}

std::string zsh_value(const OptionRow& row) {
  if (!row.choices.empty()) return "(" + joined(row.choices) + ")";
  return row.type == "TEXT" ? "_files" : " ";
}

std::string zsh_options(const CommandRow& command) {
  std::string text;
  for (const OptionRow& row : command.options) {
    for (const std::string& name : row.names) {
      text += fmt::format(" \\\n    '{}{}[{}]", row.repeatable ? "*" : "", name, zsh_text(row.help));
      if (!row.type.empty()) text += fmt::format(":{}:{}", row.type, zsh_value(row));
      text += "'";
    }
  }
  return text;
}

std::string zsh_function(const CommandRow& command) {
  std::string text = fmt::format("{}() {{\n", underscored(command.name));
  if (!command.commands.empty()) {
    text += "  local line state\n  local -a commands=(";
    for (const CommandRow& below : command.commands) {
      text += fmt::format("\n    '{}:{}'", last_word(below.name), zsh_text(below.help));
    }
    text += fmt::format(")\n  _arguments -C{} \\\n    '1: :->command' '*:: :->arguments'\n",
                        zsh_options(command));
    text +=
        "  case $state in\n    command) _describe command commands ;;\n    arguments)\n      case $line[1] "
        "in\n";
    for (const CommandRow& below : command.commands) {
      text += fmt::format("        {}) {} ;;\n", last_word(below.name), underscored(below.name));
    }
    return text + "      esac ;;\n  esac\n}\n\n";
  }
  text += "  _arguments" + zsh_options(command);
  for (const OptionRow& row : command.positionals) {
    const bool keys = row.names[0] == "overrides";
    text += fmt::format(" \\\n    '{}:{}:{}'", row.repeatable ? "*" : "", row.names[0],
                        keys ? "_ziggurat_config_keys" : zsh_value(row));
  }
  return text + "\n}\n\n";
}

}  // namespace

Page bash_completion(const CommandRow& program, const std::vector<std::string>& config_keys) {
  std::string commands, options, values, with_keys;
  for_each_command(program, [&](const CommandRow& command) {
    std::vector<std::string> below, names;
    for (const CommandRow& one : command.commands) below.push_back(last_word(one.name));
    if (!below.empty()) commands += fmt::format("    '{}') echo '{}' ;;\n", command.name, joined(below));
    for (const OptionRow& row : command.options) {
      names.insert(names.end(), row.names.begin(), row.names.end());
      if (row.type.empty()) continue;
      for (const std::string& name : row.names) {
        const std::string words = !row.choices.empty() ? joined(row.choices)
                                  : row.type == "TEXT" ? "(file)"
                                                       : "";
        values += fmt::format("    '{} {}') echo '{}' ;;\n", command.name, name, words);
      }
    }
    options += fmt::format("    '{}') echo '{}' ;;\n", command.name, joined(names));
    if (takes_config_keys(command)) {
      with_keys += (with_keys.empty() ? "'" : " | '") + command.name + "'";
    }
  });
  std::vector<std::string> assignments;
  for (const std::string& key : config_keys) assignments.push_back(key + "=");
  return {
      "bash-completion/completions/ziggurat",
      fmt::format(
          R"bash(# bash completion of ziggurat. Made by `ziggurat pages` from the option tables; do not edit.

# The sub-commands of a command.
_ziggurat_commands() {{
  case $1 in
{}  esac
}}

# The options of a command.
_ziggurat_options() {{
  case $1 in
{}  esac
}}

# What an option of a command may be: words, (file), or nothing that can be listed. Fails if it takes no value.
_ziggurat_values() {{
  case "$1 $2" in
{}    *) return 1 ;;
  esac
}}

_ziggurat_config_keys='{}'

_ziggurat() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
  # bash cuts --option=value into three words.
  if [ "$current" = = ]; then
    current=
  elif [ "$previous" = = ]; then
    previous=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi

  # Which command, and how many of its arguments are there already?
  local command= arguments=0 i word words
  for ((i = 1; i < COMP_CWORD; ++i)); do
    word=${{COMP_WORDS[i]}}
    if [[ $word == -* ]]; then
      [ "${{COMP_WORDS[i + 1]}}" = = ] && ((++i))
      _ziggurat_values "$command" "$word" >/dev/null && ((++i))
    elif [[ " $(_ziggurat_commands "$command") " == *" $word "* ]]; then
      command=${{command:+$command }}$word
    else
      ((++arguments))
    fi
  done

  compopt -o default 2>/dev/null  # files, where nothing else is offered
  COMPREPLY=()
  if words=$(_ziggurat_values "$command" "$previous"); then
    [ "$words" = '(file)' ] && return
    compopt +o default 2>/dev/null
  elif [[ $current == -* ]]; then
    words=$(_ziggurat_options "$command")
  elif words=$(_ziggurat_commands "$command") && [ -n "$words" ]; then
    compopt +o default 2>/dev/null
  else
    case $command in
      {}) [ "$arguments" = 0 ] || {{ words=$_ziggurat_config_keys; compopt -o nospace 2>/dev/null; }} ;;
    esac
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}

complete -F _ziggurat ziggurat
)bash",
          commands, options, values, joined(assignments), with_keys)};
}

Page zsh_completion(const CommandRow& program, const std::vector<std::string>& config_keys) {
  std::string text =
      "#compdef ziggurat\n# Made by `ziggurat pages` from the option tables; do not edit.\n\n"
      "_ziggurat_config_keys() {\n  compadd -S = --";
  for (const std::string& key : config_keys) text += " \\\n    " + key;
  text += "\n}\n\n";
  for_each_command(program, [&](const CommandRow& command) { text += zsh_function(command); });
  return {"zsh/site-functions/_ziggurat", text + "_ziggurat \"$@\"\n"};
}

}  // namespace ziggurat::apps
