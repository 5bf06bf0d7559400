// A thread that ends a job which does not get on, and says why. It makes no MPI call.
//
// A rank that makes no progress for the time of its phase (WatchConfig) looks at all others, names those that
// are dead, stopped or elsewhere, writes its flight log, and ends with exit code 76; launchers then end the
// rest. When a rank of this machine ends before its time, or the launcher does, this one ends too: with the
// other's exit code, if it told one. SIGQUIT makes it write its flight log and stack, and go on.
//
//   <output>/flight/rank_N.log     what rank N did last, and its stack; of a rank that was killed by a peer
//   <output>/flight/rank_N.alive   while rank N lives, where ranks lie on several machines
#pragma once

#include <memory>
#include <string>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/watch/watch_config.h>

namespace ziggurat::watch {

// How long a rank may make no progress. `median_step` 0: no step was done yet.
double limit_of(Phase phase, double median_step, const WatchConfig& config);

class Watchdog {
 public:
  // Collective. `node`: as of NodeOptions. To be destroyed after MPI ended, from where on nobody misses this
  // rank.
  Watchdog(Communicator& world, int node, const WatchConfig& config);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void use_folder(const std::string& run_folder);  // which is this run's from now on
  // For a rank that ends by what all find at once: lets the others of its machine tell it too, for three
  // seconds at most, before its end is theirs.
  void let_others_tell() const;

 private:
  struct Thread;
  std::unique_ptr<Thread> thread_;
};

}  // namespace ziggurat::watch
