// The ranks of a job as the watchdog of one of them sees them, without MPI: those of the same machine by
// their flight logs and by what the kernel tells of their processes, others by a small file that each keeps
// in the run's folder while it lives.
#pragma once

#include <string>
#include <vector>

#include <poll.h>

#include "watch/rank_view.h"
#include <ziggurat/comm/communicator.h>

namespace ziggurat::watch {

class JobRanks {
 public:
  // Collective: the ranks tell each other where they are. `node`: as of NodeOptions; only ranks with the same
  // one are looked for on this machine.
  JobRanks(Communicator& world, int node);
  ~JobRanks();
  JobRanks(const JobRanks&) = delete;
  JobRanks& operator=(const JobRanks&) = delete;

  int size() const { return static_cast<int>(others_.size()) + 1; }
  const RankView& self() const { return self_; }
  const std::vector<RankView>& others() const { return others_; }
  const FlightLog* log_of(int rank) const;  // null: of no rank of this machine

  // Once a beat; `folder`, empty: there is none yet.
  void tell(const std::string& folder);  // the others of this rank, where they are on other machines
  void look(const std::string& folder);  // at all others
  void look_at_self();
  void forget(const std::string& folder);  // this rank's file, at its end

  // To be polled for the end of a rank of this machine, and for the launcher's: of the launcher the last one.
  // Entries of -1 are over, or cannot be polled.
  std::vector<pollfd>& processes() { return processes_; }
  // Who has ended, of those that poll() found or that cannot be polled: their indices in others().
  std::vector<size_t> ended();
  bool launcher_ended() const;
  // From any thread.
  bool all_have_told() const;  // have the others of this machine said their last words, as far as they can?
  bool speaks() const;  // is it for this rank to tell of others? For the first living one of a machine.

 private:
  struct Seen {
    int64_t pid = 0;
    const FlightLog* log = nullptr;  // null: on another machine
    bool near = false;
    int64_t beats = -1, progress = -1;
  };
  std::string file_of(const std::string& folder, int rank) const;

  RankView self_;
  std::vector<RankView> others_;
  std::vector<Seen> seen_;         // of others_
  std::vector<pollfd> processes_;  // of others_, and the launcher
  int64_t launcher_;
  bool several_machines_ = false;
};

}  // namespace ziggurat::watch
