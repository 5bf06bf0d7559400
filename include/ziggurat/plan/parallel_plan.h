// ParallelPlan: which rank is what. Pure arithmetic, checked once, usable without MPI for any number of
// ranks.
//
// Ranks are numbered along axes, and there are two such numberings, each with its innermost axis first:
//   everything but experts   tp, cp, dp, pp            dp: ranks with the same parameters, and batches of
//                                                      their own
//   experts, per layer       expert-tp, ep, expert-dp  within a pipeline stage; ep: ranks that share a
//                                                      layer's experts, expert-dp: those with the same ones
// The two know nothing of each other: an ep group may span dp and tp (Megatron's parallel folding), and with
// expert-tp = tp it takes ranks that are tp apart (DeepSpeed with tensor parallelism). With 8 ranks, tp 2:
//   tp  [0 1] [2 3] [4 5] [6 7]       ep 4, expert-tp 1  [0 1 2 3] [4 5 6 7]   expert-dp [0 4] [1 5] ...
//   dp  [0 2 4 6] [1 3 5 7]           ep 4, expert-tp 2  [0 2 4 6] [1 3 5 7]   expert-dp [0] [1] ...
// Batches are split, and gradients of all but experts summed, over dp; those of experts over their expert-dp.
//
// In inference the ranks of tp have the same tokens (tokens_alike). Then experts exchange among ranks of
// equal places in tp and expert-tp only, of which one divides the other: M = max(tp, expert-tp) ranks do the
// same exchange side by side, of ep expert-tp / M ranks that are M apart, and the ranks of a fold, M /
// min(tp, expert-tp) of them, hand each other what they have brought (arXiv 2201.05596, section 5.2).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace ziggurat {

// [begin, end)
struct IndexRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const IndexRange&) const = default;
};

// Cuts the ranks into groups that differ in one coordinate only: `size` ranks, `stride` apart.
struct RankAxis {
  std::string name;  // of its groups: "dp", "ep4", "expert_dp4" (beside ep 4)
  int size = 1, stride = 1;

  int place(int rank) const { return rank / stride % size; }         // in its group
  int first(int rank) const { return rank - place(rank) * stride; }  // of its group: names it
  std::vector<int> members(int rank) const;                          // of its group, by place
  std::vector<std::vector<int>> groups(int world_size) const;        // all, by their first ranks
  bool operator==(const RankAxis&) const = default;
};

// "[0..3] [4..7]", "[0,4] [1,5] [2,6] ...": of many groups only the first, at most `shown`, and the last.
std::string groups_text(const RankAxis& axis, int world_size, size_t shown);

// Axes that a job may have beside dp and ep. No layer of the model is cut along cp or pp yet.
struct AxisSizes {
  int tp = 1, cp = 1, pp = 1, expert_tp = 1;
  bool tokens_alike = false;  // the ranks of tp have the same tokens, instead of parts of a micro-batch
  bool operator==(const AxisSizes&) const = default;
};

class ParallelPlan {
 public:
  // `ep_sizes`: of all layers, in any order; repetitions are welcome. Throws Error(config) if the sizes do
  // not divide the ranks, naming the nearest that do.
  ParallelPlan(int world_size, std::vector<int> ep_sizes, AxisSizes sizes = {});

  int world_size() const { return world_size_; }
  const std::vector<int>& ep_sizes() const { return ep_sizes_; }  // distinct, ascending

  const RankAxis& tp() const { return axes_[0]; }
  const RankAxis& cp() const { return axes_[1]; }
  const RankAxis& dp() const { return axes_[2]; }
  const RankAxis& pp() const { return axes_[3]; }
  const RankAxis& expert_tp() const { return axes_[4]; }
  // `ep` is one of ep_sizes(), else Error(internal).
  const RankAxis& ep(int ep) const { return axes_[place_of(ep)]; }
  const RankAxis& expert_dp(int ep) const { return axes_[place_of(ep) + 1]; }
  bool tokens_alike() const { return tokens_alike_; }
  // Where tokens are alike.
  const RankAxis& fold() const { return axes_[5 + 2 * ep_sizes_.size()]; }
  const RankAxis& exchange(int ep) const { return axes_[6 + 2 * ep_sizes_.size() + number_of(ep)]; }
  const std::vector<RankAxis>& axes() const { return axes_; }  // all of these

  // The experts that a rank owns. Throws Error(config) if ep does not divide them.
  IndexRange experts_of(int rank, int64_t num_experts, int ep) const;

  bool operator==(const ParallelPlan&) const = default;
  std::string str() const;  // "128 ranks; ep 32 x expert-dp 4; ep 64 x expert-dp 2"

 private:
  size_t number_of(int ep) const;  // among ep_sizes_
  size_t place_of(int ep) const { return 5 + 2 * number_of(ep); }
  void add_exchanges(const AxisSizes& sizes);

  int world_size_;
  std::vector<int> ep_sizes_;
  bool tokens_alike_;
  // tp, cp, dp, pp, expert-tp, and for each of ep_sizes_ ep and expert-dp; where tokens are alike the fold,
  // and for each of ep_sizes_ the exchange
  std::vector<RankAxis> axes_;
};

// Strict mode sums gradients over a fixed number of lanes; a rank of dp owns lanes / dp consecutive ones.
// Throws Error(config) unless both are powers of two and every rank gets at least one.
IndexRange lanes_of(int rank, int dp, int64_t lanes);

}  // namespace ziggurat
