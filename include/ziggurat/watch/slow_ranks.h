// Ranks that hold up the others: who computes longer than most, while the others wait for it in collectives.
#pragma once

#include <deque>
#include <span>
#include <vector>

namespace ziggurat::watch {

// What one rank computed in a step, in seconds.
struct StepTime {
  double computed = 0;      // without waiting for other ranks
  double without_core = 0;  // of the whole step: ready to compute, while something else had its core
};

class SlowRanks {
 public:
  struct Verdict {
    int rank = 0;
    bool slow = true;                                 // false: it was, and is as fast as others again
    double seconds = 0, usual = 0;                    // of a step: this rank's, and the median of all ranks'
    bool shares_core = false;                         // with a core to itself it would be as fast as others
    double score() const { return usual / seconds; }  // 1: as fast as most
  };

  explicit SlowRanks(int ranks) : of_rank_(static_cast<size_t>(ranks)) {}

  // Of each rank. Returns whose state has changed. A rank that is slow is so in nearly every step, while a
  // busy machine hits some steps of every rank: so a rank's time is the quarter of its latest steps that were
  // faster, and it is called slow when its score was below kSlow so many steps in a row. Where only its core
  // is shared with something else, that may pass: then it must last for kShared seconds too. Milliseconds are
  // the scheduler's, and don't count.
  std::vector<Verdict> add(std::span<const StepTime> times);

  static constexpr double kSlow = 0.75;
  static constexpr double kLeastExcess = 0.05;        // seconds over the usual
  static constexpr double kShared = 120;              // seconds
  static constexpr size_t kLatest = 11, kInARow = 9;  // steps: by its 19th slow step a rank is named

 private:
  struct Rank {
    std::deque<double> latest, latest_own;  // computed; and less what it was without a core
    bool slow = false;
    // So many steps in a row, and seconds, say that it is not what it is called; and of steps those that it
    // needs no shared core for.
    size_t against = 0, against_by_itself = 0;
    double against_seconds = 0;
  };
  std::vector<Rank> of_rank_;
};

// So long this thread has been ready to run while others had its core, in seconds since it began; 0 where
// the kernel does not tell.
double seconds_without_core();

}  // namespace ziggurat::watch
