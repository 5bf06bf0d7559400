// The option tables as manual pages: ziggurat.1, and one for each sub-command with those below it.
#include <algorithm>

#include <fmt/format.h>

#include "apps/option_table.h"
#include <ziggurat/build_config.h>
#include <ziggurat/core/error.h>

namespace ziggurat::apps {

namespace {

// A text as roff prints it, whatever stands in it. Hyphens are those of options: ASCII, also when copied.
std::string roff(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '\\':
        out += "\\(rs";
        break;
      case '-':
        out += "\\-";
        break;
      case '~':
        out += "\\(ti";
        break;
      case '^':
        out += "\\(ha";
        break;
      case '\'':
        out += "\\(aq";
        break;
      case '`':
        out += "\\(ga";
        break;
      case '"':
        out += "\\(dq";
        break;
      default:
        out += c;
    }
  }
  return out.starts_with('.') ? "\\&" + out : out;
}

std::string bold(const std::string& text) { return "\\fB" + roff(text) + "\\fR"; }
std::string italic(const std::string& text) { return "\\fI" + roff(text) + "\\fR"; }

std::string dashed(std::string name) {
  std::replace(name.begin(), name.end(), ' ', '-');
  return name;
}

std::string page_name(const CommandRow& command) {
  return command.name.empty() ? "ziggurat" : "ziggurat-" + dashed(command.name);
}

std::string reference(const std::string& page) { return bold(page) + "(1)"; }

std::string value_of(const OptionRow& row) {
  std::string text;
  for (const std::string& choice : row.choices) text += (text.empty() ? "" : "|") + bold(choice);
  if (text.empty()) text = italic(row.type);
  return text + (row.repeatable ? " ..." : "");
}

std::string table_entry(const OptionRow& row, bool positional) {
  std::string names;
  for (const std::string& name : row.names) {
    names += (names.empty() ? "" : ", ") + (positional ? italic(name) : bold(name));
  }
  if (positional && row.repeatable) names += " ...";
  if (!positional && !row.type.empty()) names += " " + value_of(row);
  std::string help = roff(row.help);
  if (!row.initial.empty()) help += fmt::format("; default: {}", roff(row.initial));
  if (row.required && !positional) help += " (required)";
  return fmt::format(".TP\n{}\n{}\n", names, help.empty() ? "\\&" : help);
}

std::string synopsis(const CommandRow& command) {
  std::string text = bold(command.name.empty() ? "ziggurat" : "ziggurat " + command.name);
  if (!command.commands.empty()) return text + " " + italic("command") + " ...";
  const bool optional = std::any_of(command.options.begin(), command.options.end(),
                                    [](const OptionRow& row) { return !row.required; });
  if (optional) text += " [" + italic("options") + "]";
  for (const OptionRow& row : command.options) {
    if (row.required) text += " " + bold(row.names.back()) + " " + value_of(row);
  }
  for (const OptionRow& row : command.positionals) {
    const std::string name = italic(row.names[0]) + (row.repeatable ? " ..." : "");
    text += row.required ? " " + name : " [" + name + "]";
  }
  return text;
}

std::string tables(const CommandRow& command) {
  std::string text;
  for (const OptionRow& row : command.positionals) text += table_entry(row, true);
  for (const OptionRow& row : command.options) text += table_entry(row, false);
  return text;
}

// The commands that do something, below this one or itself.
void collect_leaves(const CommandRow& command, std::vector<const CommandRow*>& leaves) {
  if (command.commands.empty()) leaves.push_back(&command);
  for (const CommandRow& below : command.commands) collect_leaves(below, leaves);
}

std::string exit_status() {
  std::string text = ".SH EXIT STATUS\n.TP\n.B 0\ndone\n";
  const auto row = [&](ErrorKind kind, const char* meaning) {
    text += fmt::format(".TP\n.B {}\n{}\n", exit_code(kind), meaning);
  };
  row(ErrorKind::config, "bad config or usage");
  row(ErrorKind::data, "data or checkpoint unusable");
  row(ErrorKind::numeric, "numeric fault: loss or weights are no longer finite");
  row(ErrorKind::internal, "anything else");
  return text;
}

std::string page_of(const CommandRow& command, const CommandRow& program) {
  const std::string name = page_name(command);
  std::string title = name;
  std::transform(title.begin(), title.end(), title.begin(), [](unsigned char c) { return std::toupper(c); });
  std::string text = fmt::format(
      ".\\\" Made by `ziggurat pages` from the option tables; do not edit.\n"
      ".TH {} 1 \"\" \"ziggurat {}\" \"Ziggurat\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n",
      roff(title), kVersion, roff(name), roff(command.help));
  std::vector<const CommandRow*> leaves;
  if (command.name.empty()) {
    leaves.push_back(&command);
  } else {
    collect_leaves(command, leaves);
  }
  for (const CommandRow* leaf : leaves) text += fmt::format("{}\n.br\n", synopsis(*leaf));
  if (command.commands.empty()) {
    text += ".SH OPTIONS\n" + tables(command);
  } else if (command.name.empty()) {
    text += ".SH OPTIONS\n" + tables(command) + ".SH COMMANDS\n";
    for (const CommandRow& below : command.commands) {
      text += fmt::format(".TP\n{}\n{}\n", reference(page_name(below)), roff(below.help));
    }
  } else {
    text += ".SH COMMANDS\n";
    for (const CommandRow* leaf : leaves) {
      text += fmt::format(".SS {}\n{}\n{}", roff("ziggurat " + leaf->name), roff(leaf->help), tables(*leaf));
    }
  }
  text += exit_status() + ".SH SEE ALSO\n";
  std::string others;
  const auto refer = [&](const CommandRow& other) {
    if (other.name != command.name) others += (others.empty() ? "" : ",\n") + reference(page_name(other));
  };
  if (command.name.empty()) {
    for (const CommandRow& other : program.commands) refer(other);
  } else {
    refer(program);
  }
  return text + others + "\n";
}

}  // namespace

std::vector<Page> manual_pages(const CommandRow& program) {
  std::vector<Page> pages;
  const auto add = [&](const CommandRow& command) {
    pages.push_back({"man/man1/" + page_name(command) + ".1", page_of(command, program)});
  };
  add(program);
  for (const CommandRow& command : program.commands) add(command);
  return pages;
}

}  // namespace ziggurat::apps
