// The log: one line per event, tagged with the rank. Rank 0 writes to the terminal, every rank may write to a
// file.
#pragma once

#include <string>

#include <spdlog/fmt/fmt.h>
#include <spdlog/spdlog.h>

namespace ziggurat {

// Call once, after the rank is known. `directory` may be empty: then no file is written.
// Ranks other than 0 write to <directory>/rank_<rank>.log only.
void init_log(int rank, int world_size, const std::string& directory, const std::string& level = "info");

// A message that must reach the terminal from any rank (the first cause of an abort).
void log_fatal(const std::string& message);

using spdlog::debug;
using spdlog::info;
using spdlog::warn;

}  // namespace ziggurat
