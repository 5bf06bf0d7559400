#include <algorithm>

#include <ziggurat/watch/slow_ranks.h>

namespace ziggurat::watch {

namespace {

// The value that a `part`-th of the others is not above. Of an even number of ranks the faster one of the
// middle is the usual: of two ranks one can be slow.
double quantile(std::vector<double> values, size_t part) {
  const auto place = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / part);
  std::nth_element(values.begin(), place, values.end());
  return *place;
}

}  // namespace

std::vector<SlowRanks::Verdict> SlowRanks::add(std::span<const double> seconds) {
  std::vector<double> times;
  for (size_t r = 0; r < of_rank_.size(); ++r) {
    std::deque<double>& latest = of_rank_[r].latest;
    latest.push_back(seconds[r]);
    if (latest.size() > kLatest) latest.pop_front();
    times.push_back(quantile({latest.begin(), latest.end()}, 4));
  }
  if (of_rank_.front().latest.size() < kLatest) return {};
  const double usual = quantile(times, 2);
  std::vector<Verdict> changed;
  for (size_t r = 0; r < of_rank_.size(); ++r) {
    Rank& rank = of_rank_[r];
    const bool below = usual < kSlow * times[r] && times[r] - usual > kLeastExcess;
    rank.against = below == rank.slow ? 0 : rank.against + 1;
    if (rank.against < kInARow) continue;
    rank.slow = !rank.slow, rank.against = 0;
    changed.push_back({static_cast<int>(r), rank.slow, times[r], usual});
  }
  return changed;
}

}  // namespace ziggurat::watch
