// What ranks tell each other at the end of every step, in one collective.
#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/checkpoint/saver.h>
#include <ziggurat/comm/communicator.h>
#include <ziggurat/watch/slow_ranks.h>
#include <ziggurat/watch/stop_requests.h>

namespace ziggurat::train {

struct RankAtStepEnd {
  int64_t memory_bytes = 0;
  bool made_folder_again = false;
  watch::StopRequest stop = watch::StopRequest::none;
  watch::StepTime time = {};
  Saver::Lag lag = {};
};

// The same on every rank.
struct StepEnd {
  int64_t memory_bytes = 0;                            // the largest
  bool made_folder_again = false;                      // did any?
  watch::StopRequest stop = watch::StopRequest::none;  // the largest: one rank's is enough
  std::vector<watch::StepTime> times;                  // by rank
  Saver::Lag lag;                                      // the largest
};

StepEnd tell_step_end(Communicator& world, const RankAtStepEnd& mine);  // collective

}  // namespace ziggurat::train
