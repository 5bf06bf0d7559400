// How long the latest phases of a kind took.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace ziggurat::watch {

class PhaseTimes {
 public:
  void add(double seconds) {
    if (latest_.size() < kKept) {
      latest_.push_back(seconds);
    } else {
      latest_[next_] = seconds;
      next_ = (next_ + 1) % kKept;
    }
  }
  bool empty() const { return latest_.empty(); }
  // Of those kept; 0: there are none.
  double longest() const { return empty() ? 0 : *std::max_element(latest_.begin(), latest_.end()); }
  double median() const {
    if (empty()) return 0;
    std::vector<double> sorted = latest_;
    const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
    std::nth_element(sorted.begin(), middle, sorted.end());
    return *middle;
  }

 private:
  static constexpr size_t kKept = 20;
  std::vector<double> latest_;
  size_t next_ = 0;  // the oldest
};

}  // namespace ziggurat::watch
