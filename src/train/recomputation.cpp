#include <algorithm>
#include <numeric>
#include <set>

#include <ziggurat/train/bit_hash.h>
#include <ziggurat/train/recomputation.h>

namespace ziggurat::train {

namespace {

// Hashes of what each rank has accumulated: its gradients in the order of registration, then its losses.
using Prints = std::vector<std::vector<uint64_t>>;  // [ranks][tensors + 1]

struct Both {
  Prints by_another, by_itself;  // rank r's micro-batches are those of rank r + shift, and of r
};

class Twice {
 public:
  Twice(Training& training, TrainStep& step, const StepPlan& plan, double counted_tokens,
        const TrainStep::ReadBatch& read, Stream& stream)
      : training_(training),
        step_(step),
        plan_(plan),
        counted_tokens_(counted_tokens),
        read_(read),
        stream_(stream),
        size_(training.groups.dp().size()),
        shift_(shift_of_checks(training.groups.plan())) {}

  Recomputed run() {
    const Both first = compute();
    if (disputed(first).empty()) return {};
    const Both again = compute();
    const std::vector<int> still = disputed(again);
    if (!still.empty()) {
      const int r = still.front();
      return {
          describe(suspects(still, shift_, size_), again.by_itself[at(r)], again.by_another[at(r - shift_)]),
          true};
    }
    for (int r = 0; r < size_; ++r) {
      for (const auto& [before, now] : {std::pair(first.by_another[at(r)], again.by_another[at(r)]),
                                        {first.by_itself[at(r)], again.by_itself[at(r)]}}) {
        if (before != now) return {describe({r}, before, now), false};
      }
    }
    return {};
  }

 private:
  size_t at(int rank) const { return static_cast<size_t>((rank + size_) % size_); }

  Both compute() {
    Both both;
    both.by_another = prints(shift_);
    both.by_itself = prints(0);
    return both;
  }

  Prints prints(int shift) {
    step_.accumulate_alone(plan_, counted_tokens_, read_, shift);
    stream_.wait();
    std::vector<uint64_t> mine;
    for (const nn::ParamEntry& entry : training_.store.entries()) {
      std::vector<uint64_t> sources;
      for (int64_t s = 0; s < training_.store.group_of(entry).sources; ++s) {
        sources.push_back(hash_.of(entry.param.grad_of_source(s)));
      }
      // Experts keep the sources in the order of the ranks that hold them, which is that of the others too.
      mine.push_back(
          std::accumulate(sources.begin(), sources.end(), uint64_t{0},
                          [](uint64_t all, uint64_t one) { return all * 0x9e3779b97f4a7c15 + one; }));
    }
    mine.push_back(hash_.of(step_.losses_of(plan_, shift)));
    const auto width = static_cast<int64_t>(mine.size());
    std::vector<uint64_t> all(mine.size() * static_cast<size_t>(size_));
    Stream host;
    training_.groups.dp()
        .all_gather(Tensor(mine.data(), DType::i32, {1, 2 * width}),
                    Tensor(all.data(), DType::i32, {size_, 2 * width}), host)
        .wait();
    Prints prints;
    for (auto begin = all.begin(); begin != all.end(); begin += width) {
      prints.emplace_back(begin, begin + width);
    }
    return prints;
  }

  std::vector<int> disputed(const Both& both) const {
    std::vector<int> ranks;
    for (int r = 0; r < size_; ++r) {
      if (both.by_itself[at(r)] != both.by_another[at(r - shift_)]) ranks.push_back(r);
    }
    return ranks;
  }

  std::string describe(const std::vector<int>& ranks, const std::vector<uint64_t>& one,
                       const std::vector<uint64_t>& other) const {
    size_t i = 0;
    while (one[i] == other[i]) ++i;
    const auto& entries = training_.store.entries();
    return fmt::format(
        "rank {} ({})", fmt::join(ranks, " or "),
        i == entries.size() ? "the loss of its micro-batches" : "the gradient of " + entries[i].spec.name);
  }

  Training& training_;
  TrainStep& step_;
  const StepPlan& plan_;
  double counted_tokens_;
  const TrainStep::ReadBatch& read_;
  Stream& stream_;
  int size_, shift_;
  BitHash hash_;
};

}  // namespace

int shift_of_checks(const ParallelPlan& plan) {
  int shift = 1;
  for (const int ep : plan.ep_sizes()) shift = std::lcm(shift, ep);
  return shift < plan.dp().size ? shift : 0;
}

std::vector<int> suspects(const std::vector<int>& disputed, int shift, int size) {
  std::vector<int> times(static_cast<size_t>(size), 0);
  for (const int r : disputed) {
    for (const int rank : std::set{r, (r - shift + size) % size}) ++times[static_cast<size_t>(rank)];
  }
  const int most = *std::max_element(times.begin(), times.end());
  std::vector<int> ranks;
  for (int r = 0; r < size; ++r) {
    if (times[static_cast<size_t>(r)] == most) ranks.push_back(r);
  }
  return ranks;
}

Recomputed accumulate_twice(Training& training, TrainStep& step, const StepPlan& plan, double counted_tokens,
                            const TrainStep::ReadBatch& read, Stream& stream) {
  return Twice(training, step, plan, counted_tokens, read, stream).run();
}

}  // namespace ziggurat::train
