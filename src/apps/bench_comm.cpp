// ziggurat bench comm: collectives beside MPI's own and beside a copy of the bytes that must move.
#include <cstdio>

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/machine.h"
#include <ziggurat/bench/comm_roof.h>
#include <ziggurat/comm/mpi.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::apps {

namespace {

using nlohmann::ordered_json;

std::string json(const std::vector<bench::CollectiveTime>& times, int ranks) {
  ordered_json out = {{"ranks", ranks}};
  for (const bench::CollectiveTime& t : times) {
    out["collectives"].push_back({{"name", t.name},
                                  {"bytes", t.bytes},
                                  {"seconds", t.ours},
                                  {"messages", t.messages},
                                  {"mpi_seconds", t.mpi},
                                  {"copy_seconds", t.copy}});
  }
  for (size_t i = 0; i < times.size() && times[i].by_nodes > 0; ++i) {
    out["collectives"][i]["seconds_by_nodes"] = times[i].by_nodes;
    out["collectives"][i]["messages_by_nodes"] = times[i].messages_by_nodes;
  }
  return out.dump(2);
}

void print(const std::vector<bench::CollectiveTime>& times, int ranks) {
  fmt::print(
      "{} ranks; GB/s = message bytes / time; copy: every rank copies what it must get from its peers\n",
      ranks);
  fmt::print("  {:<16}{:>10}{:>12}{:>8}{:>12}{:>8}{:>12}{:>8}{:>10}\n", "", "KiB", "us", "GB/s", "MPI us",
             "GB/s", "copy us", "GB/s", "of copy");
  for (const bench::CollectiveTime& t : times) {
    const auto rate = [&](double seconds) { return static_cast<double>(t.bytes) / seconds / 1e9; };
    fmt::print("  {:<16}{:>10}{:>12.1f}{:>8.1f}{:>12.1f}{:>8.1f}{:>12.1f}{:>8.1f}{:>8.0f} %\n", t.name,
               t.bytes / 1024, 1e6 * t.ours, rate(t.ours), 1e6 * t.mpi, rate(t.mpi), 1e6 * t.copy,
               rate(t.copy), 100 * t.copy / t.ours);
  }
  if (times.front().by_nodes == 0) return;
  fmt::print("flat, and by nodes; messages that rank 0 sends in an all-to-all\n");
  fmt::print("  {:<16}{:>10}{:>12}{:>14}{:>12}{:>14}\n", "", "KiB", "flat us", "by nodes us", "messages",
             "by nodes");
  for (const bench::CollectiveTime& t : times) {
    fmt::print("  {:<16}{:>10}{:>12.1f}{:>14.1f}", t.name, t.bytes / 1024, 1e6 * t.ours, 1e6 * t.by_nodes);
    if (t.messages > 0) fmt::print("{:>12}{:>14}", t.messages, t.messages_by_nodes);
    fmt::print("\n");
  }
}

}  // namespace

void bench_comm(const BenchArguments& arguments) {
  MpiRuntime mpi;
  use_threads(arguments.threads, "--threads", mpi.local_size());
  Communicator& world = mpi.world();
  // What the library does with whole messages.
  const auto library = mpi.make_world({.reduce_bytes = int64_t{1} << 30, .shared_from = MpiLimits::kNever});
  const int each = arguments.ranks_per_node;
  const auto by_nodes = mpi.make_world();
  by_nodes->use_nodes({.node = each > 0 ? world.rank() / each : mpi.node(),
                       .all_to_all = AllToAll::hierarchical,
                       .sums_from = 1});
  check(
      each == 0 || by_nodes->nodes() > 1, ErrorKind::argument,
      "--ranks-per-node {}: {} ranks make no nodes of it, of which there must be several with several ranks "
      "each, equally many; give a smaller divisor of the ranks above 1",
      each, world.size());
  constexpr int64_t kKiB = 1024, kMiB = kKiB * kKiB;
  const std::vector<bench::CollectiveTime> times =
      bench::measure_collectives(world, by_nodes->nodes() > 1 ? by_nodes.get() : nullptr, *library,
                                 {4 * kKiB, 64 * kKiB, kMiB, 4 * kMiB, 16 * kMiB, 64 * kMiB});
  if (world.rank() != 0) return;
  if (arguments.json) {
    fmt::print("{}\n", json(times, world.size()));
  } else {
    print(times, world.size());
  }
}

}  // namespace ziggurat::apps
