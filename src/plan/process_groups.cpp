#include <ziggurat/plan/process_groups.h>

namespace ziggurat {

ProcessGroups::ProcessGroups(Communicator& world, ParallelPlan plan) : world_(world), plan_(std::move(plan)) {
  check(plan_.world_size() == world.size(), ErrorKind::internal,
        "[groups] the plan is for {} ranks, the job has {}", plan_.world_size(), world.size());
  const std::vector<std::string> plans = world.all_gather_text(plan_.str());
  for (int r = 0; r < world.size(); ++r) {
    const std::string& other = plans[static_cast<size_t>(r)];
    check(other == plan_.str(), ErrorKind::communication,
          "[groups] rank {} plans '{}', rank {} '{}': give every rank the same config", world.rank(),
          plan_.str(), r, other);
  }
  for (const int ep : plan_.ep_sizes()) {
    const int rank = world.rank();
    Pair& pair = pairs_[ep];
    pair.ep = world.split(plan_.ep_group(rank, ep), rank, fmt::format("ep{}", ep));
    pair.expert_dp = world.split(plan_.expert_dp_group(rank, ep), rank, fmt::format("expert_dp{}", ep));
  }
}

ProcessGroups ProcessGroups::planned(ParallelPlan plan, int rank) {
  ProcessGroups groups(make_planning_communicator("world", rank, plan.world_size()), std::move(plan));
  for (const int ep : groups.plan_.ep_sizes()) {
    Pair& pair = groups.pairs_[ep];
    pair.ep = make_planning_communicator(fmt::format("ep{}", ep), groups.plan_.ep_rank(rank, ep), ep);
    pair.expert_dp =
        make_planning_communicator(fmt::format("expert_dp{}", ep), groups.plan_.expert_dp_rank(rank, ep),
                                   groups.plan_.expert_dp_size(ep));
  }
  return groups;
}

const ProcessGroups::Pair& ProcessGroups::at(int ep) const {
  const auto found = pairs_.find(ep);
  check(found != pairs_.end(), ErrorKind::internal, "[groups] expert-parallel size {} was not planned: {}",
        ep, plan_.str());
  return found->second;
}

}  // namespace ziggurat
