// What one rank's watchdog sees of a rank, and what it makes of that.
#pragma once

#include <span>
#include <string>
#include <vector>

#include <ziggurat/core/flight_log.h>

namespace ziggurat::watch {

struct RankView {
  int rank = 0;
  std::string place;      // "pid 17 on node3"
  bool readable = false;  // nothing below is known of others
  bool dead = false;      // the kernel says so
  bool stopped = false;   // it too: by SIGSTOP or a debugger
  bool said_goodbye = false;
  int silent = 0;   // on another machine: looks in a row at which its watchdog had not stirred
  int unmoved = 0;  // looks in a row at which it had made no progress
  Phase phase = Phase::start;
  int64_t step = 0;
  bool waits = false;  // in the latest collective
  FlightEvent collective = {};
  LastWords words = {};
};

// A look takes place once a beat. Who is silent for so many is stopped, or lost to this rank.
inline constexpr int kLooks = 3;

void fill(RankView& view, const FlightLog& log);  // from its log
std::string to_json(const RankView& view, int64_t beats, int64_t progress);
// The other way; false: the text is none of these (it is cut off, or empty).
bool from_json(const std::string& text, RankView& view, int64_t& beats, int64_t& progress);

std::string doing(const RankView& view);  // "step 12, in all_reduce #7 of 16 bytes on 'world'"

// "rank 2 (pid 17 on node3) is stopped, ..." for those that others wait for, in the view of a rank that does
// not get on. Empty: none stands out.
std::vector<std::string> missing_ranks(const RankView& self, std::span<const RankView> others);

}  // namespace ziggurat::watch
