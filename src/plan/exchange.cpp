#include <algorithm>

#include <ziggurat/plan/exchange.h>

namespace ziggurat {

namespace {

int on_a_node(const RankAxis& axis, int ranks_per_node) {
  return std::clamp(ranks_per_node / axis.stride, 1, axis.size);
}

}  // namespace

ExchangeMessages messages_of_exchange(const RankAxis& axis, int ranks_per_node, bool by_nodes) {
  const int here = on_a_node(axis, ranks_per_node), nodes = axis.size / here;
  if (!by_nodes || nodes == 1 || here == 1) return {here - 1, axis.size - here};
  return {int64_t{2} * (here - 1), nodes - 1};
}

double exchange_seconds(double bytes, const RankAxis& axis, const ClusterConfig& cluster, AllToAll way) {
  if (axis.size == 1) return 0;
  const auto here = static_cast<double>(on_a_node(axis, cluster.ranks_per_node)),
             all = static_cast<double>(axis.size);
  const auto seconds = [&](bool by_nodes) {
    const ExchangeMessages messages = messages_of_exchange(axis, cluster.ranks_per_node, by_nodes);
    const double inside = by_nodes ? 2 * bytes * (here - 1) / here : bytes * (here - 1) / all,
                 between = bytes * (all - here) / all;
    const double near = static_cast<double>(messages.inside) * cluster.inside.latency +
                        inside / cluster.inside.bandwidth,
                 far = (static_cast<double>(messages.between) * cluster.between.latency +
                        between / cluster.between.bandwidth) /
                       cluster.software.exchange_share;
    return by_nodes ? near + far : std::max(near, far);  // stages follow each other
  };
  if (way == AllToAll::flat) return seconds(false);
  if (way == AllToAll::hierarchical) return seconds(true);
  return std::min(seconds(false), seconds(true));
}

}  // namespace ziggurat
