// What an all-to-all of small blocks costs: messages, not bytes (arXiv 2201.05596, section 5.3).
#pragma once

#include <cstdint>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/plan/cluster.h>
#include <ziggurat/plan/parallel_plan.h>

namespace ziggurat {

// Of one rank.
struct ExchangeMessages {
  int64_t inside = 0, between = 0;  // nodes
  bool operator==(const ExchangeMessages&) const = default;
};

// Of a group of P ranks, G of them on each node of N: P - 1 in all, flat; 2 (G - 1) inside and N - 1 between
// nodes by way of the node (Communicator). `by_nodes` on one node is flat.
ExchangeMessages messages_of_exchange(const RankAxis& axis, int ranks_per_node, bool by_nodes);

// Seconds of an all-to-all in which each rank has `bytes` for all together: a latency for each message, one
// after another, and the bytes through the links, by nodes inside them twice. Automatic: the faster way.
double exchange_seconds(double bytes, const RankAxis& axis, const ClusterConfig& cluster, AllToAll way);

}  // namespace ziggurat
