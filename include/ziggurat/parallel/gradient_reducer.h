// From gradients of this rank's micro-batches to the gradient of the step, the same on every rank that holds
// the parameter: a sum over ranks (the losses are already divided by the whole step's tokens).
//
// Replicated parameters are summed over the world; the experts of a layer over its expert-data-parallel
// group, because an expert's gradient already holds the tokens of its whole expert-parallel group.
//
// In strict mode the sum over micro-batches has a fixed shape too. The step's micro-batches are cut into
// lanes; within a lane gradients are added in order; lanes are added in one binary tree, whose lower levels
// lie within a rank and whose upper levels lie across ranks. So the bits do not depend on how many ranks
// share the lanes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ziggurat/nn/param_store.h>
#include <ziggurat/plan/process_groups.h>

namespace ziggurat::parallel {

class GradientReducer {
 public:
  // `lanes_per_rank`: 1, or in strict mode a power of two. Both arguments must outlive the reducer.
  GradientReducer(nn::ParamStore& store, const ProcessGroups& groups, int64_t lanes_per_rank);

  void begin_step();            // zeroes the gradients
  void end_lane();              // strict mode: folds the lane's gradient into the tree
  void reduce(Stream& stream);  // sums over ranks; afterwards ParamGroup::gradient's first slab is the step's
                                // gradient

  // Squared L2 norm of the whole model's reduced gradient, each parameter counted once, the same bits on
  // every layout. Parameter by parameter (experts: expert by expert) in registration order, in double.
  double squared_norm(Stream& stream);

 private:
  // The gradients of finished lanes of one group: level l holds the sum of 2^l lanes, or nothing (a binary
  // counter).
  struct LaneTree {
    std::vector<Tensor> levels;
    std::vector<bool> occupied;
  };
  void fold(const nn::ParamGroup& group, LaneTree& tree);

  nn::ParamStore& store_;
  const ProcessGroups& groups_;
  int64_t lanes_per_rank_;
  std::unique_ptr<Arena> arena_;
  std::vector<LaneTree> trees_;  // per group; empty in layout mode
};

}  // namespace ziggurat::parallel
