// Ranks that hold up the others: who computes longer than most, while the others wait for it in collectives.
#pragma once

#include <deque>
#include <span>
#include <vector>

namespace ziggurat::watch {

class SlowRanks {
 public:
  struct Verdict {
    int rank = 0;
    bool slow = true;                                 // false: it was, and is as fast as others again
    double seconds = 0, usual = 0;                    // of a step: this rank's, and the median of all ranks'
    double score() const { return usual / seconds; }  // 1: as fast as most
  };

  explicit SlowRanks(int ranks) : of_rank_(static_cast<size_t>(ranks)) {}

  // What each rank computed in a step, in seconds, without its waiting for others. Returns whose state has
  // changed. A rank that is slow is so in nearly every step, while a busy machine hits some steps of every
  // rank: so a rank's time is the quarter of its latest steps that were faster, and it is called slow when
  // its score was below kSlow so many steps in a row. Milliseconds are the scheduler's, and don't count.
  std::vector<Verdict> add(std::span<const double> seconds);

  static constexpr double kSlow = 0.75;
  static constexpr double kLeastExcess = 0.05;        // seconds over the usual
  static constexpr size_t kLatest = 11, kInARow = 9;  // steps: by its 19th slow step a rank is named

 private:
  struct Rank {
    std::deque<double> latest;
    bool slow = false;
    size_t against = 0;  // so many steps in a row say that it is not what it is called
  };
  std::vector<Rank> of_rank_;
};

}  // namespace ziggurat::watch
