#include "data_tools/progress.h"

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>
#include <unistd.h>

namespace ziggurat {

Progress::Progress(std::string what, int64_t total_bytes)
    : what_(std::move(what)), total_bytes_(total_bytes), terminal_(::isatty(STDERR_FILENO) != 0) {}

void Progress::print(int64_t bytes, int64_t tokens, const char* end) {
  const double seconds = std::max(timer_.seconds(), 1e-6), rate = static_cast<double>(bytes) / seconds;
  std::string line = fmt::format("{}: {:.1f} MB", what_, static_cast<double>(bytes) * 1e-6);
  if (total_bytes_ > 0) line += fmt::format(" of {:.1f} MB", static_cast<double>(total_bytes_) * 1e-6);
  if (tokens > 0) line += fmt::format(", {} tokens", tokens);
  line += fmt::format(", {:.1f} MB/s", rate * 1e-6);
  if (tokens > 0) line += fmt::format(", {:.2f} Mtokens/s", static_cast<double>(tokens) / seconds * 1e-6);
  const double left = rate > 0 ? static_cast<double>(total_bytes_ - bytes) / rate : 0;
  line += left > 0.5 ? fmt::format(", ETA {:.0f} s", left) : fmt::format(", {:.1f} s", seconds);
  std::fprintf(stderr, terminal_ ? "\r\033[K%s%s" : "%s%s", line.c_str(), end);
  std::fflush(stderr);
  last_print_ = seconds;
}

void Progress::update(int64_t bytes, int64_t tokens) {
  if (timer_.seconds() - last_print_ >= (terminal_ ? 0.5 : 10.0)) print(bytes, tokens, terminal_ ? "" : "\n");
}

void Progress::finish(int64_t bytes, int64_t tokens) { print(bytes, tokens, "\n"); }

}  // namespace ziggurat
