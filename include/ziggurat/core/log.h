// The log: one line per event, tagged with the rank. Rank 0 writes to the terminal, every rank may write to a
// file.
#pragma once

#include <string>
#include <utility>

#include <fmt/format.h>

namespace ziggurat {

enum class LogLevel { debug, info, warn };

// Call once, after the rank is known. Rank 0 writes to the terminal; what is told before there is a file is
// remembered (the newest thousand lines).
void init_log(int rank, int world_size, LogLevel level = LogLevel::info);

// From now on every line is appended to <directory>/rank_<rank>.log too, the remembered ones first. The
// directory must exist; throws Error(config) naming the file when it cannot be opened.
void log_to_folder(const std::string& directory);

// Goes on in a new file where somebody removed the old one; nothing without log_to_folder().
void remake_log_file();

// A message that must reach the terminal from any rank (the first cause of an abort).
void log_fatal(const std::string& message);
void log_to_file(const std::string& message);  // one that another rank tells there

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
