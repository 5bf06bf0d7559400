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
  for (const RankAxis& axis : plan_.axes()) {
    if (is_world(axis)) continue;
    groups_[axis.name] = axis.size == 1 ? make_self_communicator()
                                        : world.split(axis.first(world.rank()), world.rank(), axis.name);
  }
}

ProcessGroups ProcessGroups::planned(ParallelPlan plan, int rank) {
  ProcessGroups groups(make_planning_communicator("world", rank, plan.world_size()), std::move(plan));
  for (const RankAxis& axis : groups.plan_.axes()) {
    if (groups.is_world(axis)) continue;
    groups.groups_[axis.name] = make_planning_communicator(axis.name, axis.place(rank), axis.size);
  }
  return groups;
}

// With no other axis dp is all ranks. Experts exchange by groups of their own even so: what they exchange
// need not wait for what the world does.
bool ProcessGroups::is_world(const RankAxis& axis) const {
  return axis.name == plan_.dp().name && axis.size == plan_.world_size();
}

Communicator& ProcessGroups::along(const RankAxis& axis) const {
  return is_world(axis) ? world_ : *groups_.at(axis.name);
}

}  // namespace ziggurat
