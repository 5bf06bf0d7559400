// From gradients of this rank's micro-batches to the gradient of the step, the same on every rank that holds
// the parameter: a sum over ranks (the losses are already divided by the whole step's tokens).
//
// Replicated parameters are summed over dp; the experts of a layer over its expert-data-parallel
// group, because an expert's gradient already holds the tokens of its whole expert-parallel group.
//
// In strict mode the sum over micro-batches has a fixed shape too. The step's micro-batches are cut into
// lanes; within a lane gradients are added in order; lanes are added in one binary tree, whose lower levels
// lie within a rank and whose upper levels lie across ranks. So the bits do not depend on how many ranks
// share the lanes.
//
// Where ranks share the update of a group (ParamGroup::owned) each gets the sum of what it owns, but in
// strict mode, whose norms are sums over whole parameters, that of all.
//
// A group is reduced as soon as backward has all its gradients of the last micro-batch, behind what is left
// of backward; with ParamGroup::scattered (ZeRO-2) of every micro-batch, in memory that groups take in turn.
// All ranks run the same steps of backward, so they come to the groups in the same order.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/nn/param_store.h>
#include <ziggurat/plan/process_groups.h>

namespace ziggurat::parallel {

struct Loan;

class GradientReducer final : public GradientFollower {
 public:
  // `lanes_per_rank`: 1, or in strict mode a power of two. `store` is finalized; both outlive the reducer.
  // `norm_groups`: with which others each entry of the store has a norm, by number from 0; empty: all have
  // one.
  GradientReducer(nn::ParamStore& store, const ProcessGroups& groups, int64_t lanes_per_rank,
                  const std::vector<int>& norm_groups = {});
  ~GradientReducer() override;

  // All in the order of the stream, which is one of the store's device.
  void begin_step(Stream& stream);  // zeroes the gradients
  // Around each micro-batch, while the reducer follows its tape. `behind`: it is the step's last, and what is
  // complete may be reduced at once.
  void begin_micro_batch(Stream& stream, bool behind);
  // What is on its way on devices is held for by what the stream is given from now on: the end of a recorded
  // micro-batch.
  void join();
  // Instead of backward, where a graph did what was last recorded of a micro-batch that was `behind` or not.
  void repeat();
  void end_micro_batch();
  void end_lane(Stream& stream);  // strict mode: folds the lane's gradient into the tree
  void reduce(Stream& stream);    // sums over ranks; afterwards ParamStore::owned_gradient is the step's

  // Squared L2 norms f64 [norm groups, parts] of the reduced gradient: rank by rank of those groups of which
  // each rank has its own range, then parameter by parameter (experts: expert by expert) in registration
  // order, zero where the part is another norm group's; on the store's device, until the next call. The sum
  // of a row is that of its norm group, of all that of the whole model, each element counted once. The same
  // bits on every rank, and in strict mode on every layout.
  Tensor squared_norms(Stream& stream);

  int64_t lent_bytes() const;  // memory for gradients of scattered groups

  void before_write(const Param& param) override;
  void complete(const Param& param) override;
  void between_steps() override;

 private:
  // The gradients of finished lanes of one group: level l holds the sum of 2^l lanes, or nothing (a binary
  // counter).
  struct LaneTree {
    std::vector<Tensor> levels;
    std::vector<bool> occupied;
  };
  // Of a group, in the micro-batch under way.
  struct Progress {
    std::vector<const nn::ParamEntry*> entries;
    size_t to_come = 0;    // of them, whose gradients are not complete
    bool reduced = false;  // or on its way
    Loan* loan = nullptr;  // of a scattered one
  };
  bool scatters(const nn::ParamGroup& group) const;
  void fold(const nn::ParamGroup& group, LaneTree& tree, Stream& stream);
  void plan_norms(const std::vector<int>& norm_groups);
  void plan_norms_of_ranges(const std::vector<int>& norm_groups);
  void begin_reduction(size_t group, Stream& stream);
  void settle(size_t group);
  void begin_scatter(size_t group);
  void end_scatter();
  Loan& lend(int64_t elements);
  const nn::ParamEntry& entry_of(const Param& param) const;

  // A piece of the gradient whose norm is this rank's to tell, and its place in squared_norms_.
  struct Part {
    Tensor gradient;
    int norm_group;
    int64_t place;  // in its row
  };

  nn::ParamStore& store_;
  const ProcessGroups& groups_;
  int64_t lanes_per_rank_;
  std::unique_ptr<Arena> arena_;
  std::vector<LaneTree> trees_;               // per group; empty in layout mode
  std::vector<Progress> progress_;            // per group
  std::vector<Communicator*> ranks_;          // that groups are reduced over
  std::vector<std::unique_ptr<Loan>> loans_;  // as many as are out at once
  std::vector<Work> under_way_;
  std::vector<bool> recorded_;  // per group: reduced behind backward, when that last ran
  size_t scattering_ = 0;       // the group whose sum is under way; none: as many as there are
  Work scatter_;
  Stream* stream_ = nullptr;  // of the micro-batch under way
  bool behind_ = false;
  std::vector<Part> mine_;
  std::unique_ptr<Arena> norm_arena_;
  int64_t parts_ = 0;
  Tensor squared_norms_;
};

}  // namespace ziggurat::parallel
