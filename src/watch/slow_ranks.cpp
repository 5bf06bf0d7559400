#include <algorithm>
#include <array>
#include <cstdlib>

#include <fcntl.h>
#include <unistd.h>

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

double latest_quarter(std::deque<double>& latest, double newest) {
  latest.push_back(newest);
  if (latest.size() > SlowRanks::kLatest) latest.pop_front();
  return quantile({latest.begin(), latest.end()}, 4);
}

bool above(double seconds, double usual) {
  return usual < SlowRanks::kSlow * seconds && seconds - usual > SlowRanks::kLeastExcess;
}

}  // namespace

std::vector<SlowRanks::Verdict> SlowRanks::add(std::span<const StepTime> times) {
  std::vector<double> seconds, own;
  double step = 0;  // what the slowest takes
  for (size_t r = 0; r < of_rank_.size(); ++r) {
    const StepTime& time = times[r];
    seconds.push_back(latest_quarter(of_rank_[r].latest, time.computed));
    own.push_back(latest_quarter(of_rank_[r].latest_own, std::max(0.0, time.computed - time.without_core)));
    step = std::max(step, time.computed);
  }
  if (of_rank_.front().latest.size() < kLatest) return {};
  // With whatever else its core does: what the usual rank was without one came while it waited, perhaps.
  const double usual = quantile(seconds, 2);
  std::vector<Verdict> changed;
  for (size_t r = 0; r < of_rank_.size(); ++r) {
    Rank& rank = of_rank_[r];
    const bool below = above(seconds[r], usual), by_itself = above(own[r], usual);
    const bool against = below != rank.slow;
    rank.against = against ? rank.against + 1 : 0;
    rank.against_seconds = against ? rank.against_seconds + step : 0;
    rank.against_by_itself = against && by_itself ? rank.against_by_itself + 1 : 0;
    const bool sure = rank.slow || rank.against_by_itself >= kInARow || rank.against_seconds >= kShared;
    if (rank.against < kInARow || !sure) continue;
    const bool shares_core = rank.against_by_itself < kInARow;
    rank.slow = !rank.slow;
    rank.against = rank.against_by_itself = 0, rank.against_seconds = 0;
    changed.push_back({static_cast<int>(r), rank.slow, seconds[r], usual, rank.slow && shares_core});
  }
  return changed;
}

double seconds_without_core() {
  const int file = ::open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  std::array<char, 128> text{};
  const ssize_t n = ::read(file, text.data(), text.size() - 1);
  ::close(file);
  if (n <= 0) return 0;
  char* rest = text.data();
  std::strtoll(rest, &rest, 10);  // nanoseconds on a core
  return static_cast<double>(std::strtoll(rest, nullptr, 10)) * 1e-9;
}

}  // namespace ziggurat::watch
