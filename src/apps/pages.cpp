// ziggurat pages --output DIR: manual pages and completion, out of the tables that the command line is made
// of. Hidden: `cmake --install` runs it.
#include <cctype>
#include <filesystem>

#include "apps/option_table.h"
#include <ziggurat/config/config.h>
#include <ziggurat/core/error.h>
#include <ziggurat/io/files.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::apps {

namespace {

// Those of every run; not the elements of lists, whose keys have numbers.
std::vector<std::string> config_keys() {
  std::vector<std::string> keys;
  for_each_value(train::RunConfig{}, [&](const std::string& key, const Field&) {
    bool element = false;
    for (size_t at = key.find('.'); at != std::string::npos; at = key.find('.', at + 1)) {
      element |= std::isdigit(static_cast<unsigned char>(key[at + 1])) != 0;
    }
    if (!element) keys.push_back(key);
  });
  return keys;
}

}  // namespace

void write_pages(const CLI::App& app, const std::string& folder) {
  const CommandRow program = read_command(app);
  std::vector<Page> pages = manual_pages(program);
  pages.push_back(bash_completion(program, config_keys()));
  pages.push_back(zsh_completion(program, config_keys()));
  for (const Page& page : pages) {
    const std::filesystem::path file = std::filesystem::path(folder) / page.path;
    std::error_code reason;
    std::filesystem::create_directories(file.parent_path(), reason);
    check(!reason, ErrorKind::argument, "--output: the folder {} cannot be made: {}",
          file.parent_path().string(), reason.message());
    replace_file(file.string(), page.text, ErrorKind::argument);
  }
}

}  // namespace ziggurat::apps
