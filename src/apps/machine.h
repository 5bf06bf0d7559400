// What a command takes of the machine that its ranks run on: threads, GPUs, nodes.
#pragma once

#include <ziggurat/comm/mpi.h>
#include <ziggurat/runtime/device.h>

namespace ziggurat::apps {

// choose_thread_count; the warning goes to stderr.
void use_threads(int asked, const char* option, int local_ranks = 1);

// The device that a config names is this rank's GPU from now on, and GPUs exchange by themselves where each
// rank has its own. Collective. Throws Error(device) with its cure where there is none, or none that this
// build has kernels for.
void use_device(Device device, MpiRuntime& mpi);

// The node of this rank: of so many consecutive ranks, or, if 0, of those that share a machine's memory.
int node_of(int ranks_per_node, const MpiRuntime& mpi, const Communicator& world);

// `world`, of the ranks of mpi.world(), and groups that are split from it know their nodes from now on
// (node_of). Collective.
void use_nodes(int ranks_per_node, AllToAll all_to_all, const MpiRuntime& mpi, Communicator& world);

}  // namespace ziggurat::apps
