// ParallelPlan: which rank is what. Pure arithmetic, checked once, usable without MPI for any number of
// ranks.
//
// Every layer of experts has an expert-parallel size `ep`: its experts are cut over ep ranks, and the cut is
// repeated world / ep times. With W = 8 and ep = 4 ("E + D" of DeepSpeed, deepspeed/utils/groups.py):
//   EP groups         [0 1 2 3] [4 5 6 7]        consecutive ranks: tokens travel between near neighbours
//   expert-dp groups  [0 4] [1 5] [2 6] [3 7]    stride ep: ranks that hold the same experts
// All other parameters are replicated on, and their gradients reduced over, the world.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ziggurat {

// [begin, end)
struct IndexRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const IndexRange&) const = default;
};

class ParallelPlan {
 public:
  // `ep_sizes`: of all layers, in any order; repetitions are welcome. Throws Error(config) if one does not
  // divide the world, naming the nearest sizes that do.
  ParallelPlan(int world_size, std::vector<int> ep_sizes);

  int world_size() const { return world_size_; }
  const std::vector<int>& ep_sizes() const { return ep_sizes_; }  // distinct, ascending

  // A rank's EP group and its place there. `ep` is one of ep_sizes(), else Error(internal).
  int ep_group(int rank, int ep) const { return checked_rank(rank) / checked_ep(ep); }
  int ep_rank(int rank, int ep) const { return checked_rank(rank) % checked_ep(ep); }
  std::vector<int> ep_members(int rank, int ep) const;  // ranks of the world, in group order

  // The ranks that hold the same experts as this one.
  int expert_dp_size(int ep) const { return world_size_ / checked_ep(ep); }
  int expert_dp_group(int rank, int ep) const { return ep_rank(rank, ep); }
  int expert_dp_rank(int rank, int ep) const { return ep_group(rank, ep); }
  std::vector<int> expert_dp_members(int rank, int ep) const;

  // The experts that a rank owns. Throws Error(config) if ep does not divide them.
  IndexRange experts_of(int rank, int64_t num_experts, int ep) const;

  bool operator==(const ParallelPlan&) const = default;
  std::string str() const;  // "128 ranks; ep 32 x expert-dp 4; ep 64 x expert-dp 2"

 private:
  int checked_rank(int rank) const;
  int checked_ep(int ep) const;
  int world_size_;
  std::vector<int> ep_sizes_;
};

// Strict mode sums gradients over a fixed number of lanes; a rank owns lanes / world_size consecutive ones.
// Throws Error(config) unless both are powers of two and every rank gets at least one.
IndexRange lanes_of(int rank, int world_size, int64_t lanes);

}  // namespace ziggurat
