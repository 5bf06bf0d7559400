// ziggurat report RUN [RUN ...] --output FILE.html
#include <filesystem>

#include "apps/commands.h"
#include <ziggurat/core/amounts.h>
#include <ziggurat/core/error.h>
#include <ziggurat/io/files.h>
#include <ziggurat/report/page.h>

namespace ziggurat::apps {

void report(const ReportArguments& arguments) {
  std::vector<report::RunHistory> runs;
  for (const std::string& path : arguments.runs) {
    runs.push_back(report::read_history(path));
    check(!runs.back().steps.empty(), ErrorKind::data,
          "{}: its metrics.jsonl holds no step yet; wait for the run's first", path);
  }
  const std::string page = report::html_page(runs);
  replace_file(arguments.output, page);
  fmt::print("{}: {} run{}, {}\n", arguments.output, runs.size(), runs.size() == 1 ? "" : "s",
             format_bytes(static_cast<double>(page.size())));
}

}  // namespace ziggurat::apps
