// ziggurat bench comm: collectives beside MPI's own and beside a copy of the bytes that must move.
#include <cstdio>

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include <ziggurat/comm/mpi.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/comm_roof.h>

namespace ziggurat::apps {

namespace {

using nlohmann::ordered_json;

std::string json(const std::vector<train::CollectiveTime>& times, int ranks) {
  ordered_json out = {{"ranks", ranks}};
  for (const train::CollectiveTime& t : times) {
    out["collectives"].push_back({{"name", t.name},
                                  {"bytes", t.bytes},
                                  {"seconds", t.ours},
                                  {"mpi_seconds", t.mpi},
                                  {"copy_seconds", t.copy}});
  }
  return out.dump(2);
}

void print(const std::vector<train::CollectiveTime>& times, int ranks) {
  fmt::print(
      "{} ranks; GB/s = message bytes / time; copy: every rank copies what it must get from its peers\n",
      ranks);
  fmt::print("  {:<16}{:>10}{:>12}{:>8}{:>12}{:>8}{:>12}{:>8}{:>10}\n", "", "KiB", "us", "GB/s", "MPI us",
             "GB/s", "copy us", "GB/s", "of copy");
  for (const train::CollectiveTime& t : times) {
    const auto rate = [&](double seconds) { return static_cast<double>(t.bytes) / seconds / 1e9; };
    fmt::print("  {:<16}{:>10}{:>12.1f}{:>8.1f}{:>12.1f}{:>8.1f}{:>12.1f}{:>8.1f}{:>8.0f} %\n", t.name,
               t.bytes / 1024, 1e6 * t.ours, rate(t.ours), 1e6 * t.mpi, rate(t.mpi), 1e6 * t.copy,
               rate(t.copy), 100 * t.copy / t.ours);
  }
}

}  // namespace

void bench_comm(const BenchArguments& arguments) {
  MpiRuntime mpi;
  use_threads(arguments.threads, "--threads", mpi.local_size());
  Communicator& world = mpi.world();
  // What the library does with whole messages.
  const auto library = mpi.make_world({.reduce_bytes = int64_t{1} << 30, .shared_from = MpiLimits::kNever});
  constexpr int64_t kMiB = int64_t{1} << 20;
  const std::vector<train::CollectiveTime> times =
      train::measure_collectives(world, *library, {kMiB / 16, kMiB, 4 * kMiB, 16 * kMiB, 64 * kMiB});
  if (world.rank() != 0) return;
  if (arguments.json) {
    fmt::print("{}\n", json(times, world.size()));
  } else {
    print(times, world.size());
  }
}

}  // namespace ziggurat::apps
