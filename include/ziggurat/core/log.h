// The log: one line per event, tagged with the rank. Rank 0 writes to the terminal, every rank may write to a
// file.
#pragma once

#include <string>
#include <utility>

#include <fmt/format.h>

namespace ziggurat {

enum class LogLevel { debug, info, warn };

// Call once, after the rank is known. `directory` may be empty: then no file is written.
// Ranks other than 0 write to <directory>/rank_<rank>.log only.
void init_log(int rank, int world_size, const std::string& directory, LogLevel level = LogLevel::info);

// A message that must reach the terminal from any rank (the first cause of an abort).
void log_fatal(const std::string& message);

void log_line(LogLevel level, const std::string& message);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::warn, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace ziggurat
