#include "data_tools/progress.h"

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>
#include <unistd.h>

namespace ziggurat {

Progress::Progress(std::string what, int64_t total, std::string unit)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      terminal_(::isatty(STDERR_FILENO) != 0) {}

std::string Progress::amount(double done) const {
  return unit_.empty() ? fmt::format("{:.1f} MB", done * 1e-6) : fmt::format("{:.0f} {}", done, unit_);
}

void Progress::print(int64_t done, int64_t tokens, const char* end) {
  const double seconds = std::max(timer_.seconds(), 1e-6), rate = static_cast<double>(done) / seconds;
  std::string line = fmt::format("{}: {}", what_, amount(static_cast<double>(done)));
  if (total_ > 0) line += fmt::format(" of {}", amount(static_cast<double>(total_)));
  if (tokens > 0) line += fmt::format(", {} tokens", tokens);
  line += fmt::format(", {}/s", amount(rate));
  if (tokens > 0) line += fmt::format(", {:.2f} Mtokens/s", static_cast<double>(tokens) / seconds * 1e-6);
  const double left = rate > 0 ? static_cast<double>(total_ - done) / rate : 0;
  line += left > 0.5 ? fmt::format(", ETA {:.0f} s", left) : fmt::format(", {:.1f} s", seconds);
  std::fprintf(stderr, terminal_ ? "\r\033[K%s%s" : "%s%s", line.c_str(), end);
  std::fflush(stderr);
  last_print_ = seconds;
}

void Progress::update(int64_t done, int64_t tokens) {
  if (timer_.seconds() - last_print_ >= (terminal_ ? 0.5 : 10.0)) print(done, tokens, terminal_ ? "" : "\n");
}

void Progress::finish(int64_t done, int64_t tokens) { print(done, tokens, "\n"); }

}  // namespace ziggurat
