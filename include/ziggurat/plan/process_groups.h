// The communicators of a plan, made once at start-up: one along every axis.
#pragma once

#include <map>
#include <memory>
#include <string>

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
  // All ranks: for set-up, and for what the whole job must know (errors, the gradient's norm).
  Communicator& world() const { return world_; }
  // Ranks with the same parameters: shares the step's micro-batches, sums the gradients of all but experts.
  Communicator& dp() const { return along(plan_.dp()); }
  Communicator& tp() const { return along(plan_.tp()); }
  // Ranks that share the tokens of a micro-batch between them: those of tp, unless they all have all.
  Communicator& token_parts() const { return plan_.tokens_alike() ? *alone_ : tp(); }
  Communicator& cp() const { return along(plan_.cp()); }
  Communicator& pp() const { return along(plan_.pp()); }
  // Ranks that share the matrices of the same experts.
  Communicator& expert_tp() const { return along(plan_.expert_tp()); }
  // `ep` is one of plan().ep_sizes(), else Error(internal).
  Communicator& ep(int ep) const { return along(plan_.ep(ep)); }  // exchanges tokens between experts
  Communicator& expert_dp(int ep) const { return along(plan_.expert_dp(ep)); }  // sums experts' gradients
  // Where tokens are alike, see ParallelPlan.
  Communicator& fold() const { return along(plan_.fold()); }
  Communicator& exchange(int ep) const { return along(plan_.exchange(ep)); }

 private:
  ProcessGroups(std::unique_ptr<Communicator> owned_world, ParallelPlan plan)
      : owned_world_(std::move(owned_world)), world_(*owned_world_), plan_(std::move(plan)) {}
  bool is_world(const RankAxis& axis) const;
  Communicator& along(const RankAxis& axis) const;

  std::unique_ptr<Communicator> owned_world_;  // of a planned one
  std::unique_ptr<Communicator> alone_ = make_self_communicator();
  Communicator& world_;
  ParallelPlan plan_;
  std::map<std::string, std::unique_ptr<Communicator>> groups_;  // by the axis' name
};

}  // namespace ziggurat
