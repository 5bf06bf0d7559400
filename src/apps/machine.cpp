#include "apps/machine.h"

#include <cstdio>
#include <string>

#include <fmt/format.h>

#include <ziggurat/core/log.h>
#include <ziggurat/runtime/backend.h>
#include <ziggurat/runtime/gpus.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::apps {

void use_threads(int asked, const char* option, int local_ranks) {
  const std::string slow = choose_thread_count(asked, option, local_ranks);
  if (!slow.empty()) fmt::print(stderr, "ziggurat: {}\n", slow);
}

void use_device(Device device, MpiRuntime& mpi) {
  if (device != Device::cuda) return;
  check_gpu(look_for_gpus(), mpi.local_rank());
  backend(device).choose(mpi.local_rank());
  const std::string why_not = mpi.world().use_devices();
  if (!why_not.empty() && mpi.world().rank() == 0) {
    warn("collectives go through the host's memory: {}", why_not);
  }
}

int node_of(int ranks_per_node, const MpiRuntime& mpi, const Communicator& world) {
  return ranks_per_node > 0 ? world.rank() / ranks_per_node : mpi.node();
}

void use_nodes(int ranks_per_node, AllToAll all_to_all, const MpiRuntime& mpi, Communicator& world) {
  world.use_nodes({.node = node_of(ranks_per_node, mpi, world), .all_to_all = all_to_all});
  if (world.nodes() > 1) {
    info("{} nodes of {} ranks", world.nodes(), world.size() / world.nodes());
  } else if (all_to_all == AllToAll::hierarchical && world.rank() == 0) {
    warn(
        "parallel.all_to_all = hierarchical: has no effect, as the {} ranks do not lie on several nodes of "
        "several ranks, equally many on each. Cure: remove it, start others, or set parallel.ranks_per_node",
        world.size());
  }
}

}  // namespace ziggurat::apps
