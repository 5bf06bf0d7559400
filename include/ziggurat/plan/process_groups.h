// The communicators of a plan, made once at start-up.
#pragma once

#include <map>
#include <memory>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/plan/parallel_plan.h>

namespace ziggurat {

class ProcessGroups {
 public:
  // Collective over `world`, which must outlive this object. Throws Error(communication) if the plan is not
  // the same on all ranks, and Error(internal) if it is for another number of ranks.
  ProcessGroups(Communicator& world, ParallelPlan plan);

  // The groups as rank `rank` of the plan would have them, for planning on Device::meta in one process.
  static ProcessGroups planned(ParallelPlan plan, int rank);

  const ParallelPlan& plan() const { return plan_; }
  Communicator& world() const { return world_; }
  // `ep` is one of plan().ep_sizes(), else Error(internal).
  Communicator& ep(int ep) const { return *at(ep).ep; }  // exchanges tokens between experts
  Communicator& expert_dp(int ep) const {
    return *at(ep).expert_dp;
  }  // sums the gradients of the same experts

 private:
  struct Pair {
    std::unique_ptr<Communicator> ep, expert_dp;
  };
  ProcessGroups(std::unique_ptr<Communicator> owned_world, ParallelPlan plan)
      : owned_world_(std::move(owned_world)), world_(*owned_world_), plan_(std::move(plan)) {}
  const Pair& at(int ep) const;

  std::unique_ptr<Communicator> owned_world_;  // of a planned one
  Communicator& world_;
  ParallelPlan plan_;
  std::map<int, Pair> pairs_;  // by expert-parallel size
};

}  // namespace ziggurat
