#include <atomic>
#include <stdexcept>
#include <thread>

#include "tests/comm/communicator_contract.h"
#include <ziggurat/comm/mpi.h>
#include <ziggurat/comm/thread.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/plan/process_groups.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using contract::message_of;
using testing::AllOf;
using testing::HasSubstr;

CommunicatorHarness self_harness() {
  return {"Self", [](const auto& body) { body(*make_self_communicator()); }};
}

CommunicatorHarness thread_harness(const std::string& name, int ranks, int64_t chunk_bytes) {
  return {name, [=](const auto& body) { run_on_threads(ranks, body, chunk_bytes); }};
}

// 3 is no power of two: everything but the fixed tree. 24-byte chunks cut every reduction of the suite.
INSTANTIATE_TEST_SUITE_P(, CommunicatorContract,
                         testing::Values(self_harness(), thread_harness("Thread1", 1, kReduceChunkBytes),
                                         thread_harness("Thread2", 2, kReduceChunkBytes),
                                         thread_harness("Thread3", 3, kReduceChunkBytes),
                                         thread_harness("Thread4", 4, kReduceChunkBytes),
                                         thread_harness("Thread3Chunked", 3, 24),
                                         thread_harness("Thread4Chunked", 4, 24)),
                         harness_name);

constexpr NodeOptions kByNodes = {.all_to_all = AllToAll::hierarchical, .sums_from = 1};

// `ranks` threads on nodes of `each` consecutive ones; the last may have fewer.
CommunicatorHarness nodes_harness(const std::string& name, int ranks, int each,
                                  NodeOptions options = kByNodes, int64_t chunk_bytes = kReduceChunkBytes) {
  return {name, [=](const auto& body) {
            run_on_threads(
                ranks,
                [&](Communicator& world) {
                  NodeOptions here = options;
                  here.node = world.rank() / each;
                  world.use_nodes(here);
                  body(world);
                },
                chunk_bytes);
          }};
}

// As ranks lie that a launcher deals out to the nodes in turn.
CommunicatorHarness dealt_harness(const std::string& name, int ranks, int nodes) {
  return {name, [=](const auto& body) {
            run_on_threads(ranks, [&](Communicator& world) {
              NodeOptions here = kByNodes;
              here.node = world.rank() % nodes;
              world.use_nodes(here);
              body(world);
            });
          }};
}

INSTANTIATE_TEST_SUITE_P(Nodes, CommunicatorContract,
                         testing::Values(nodes_harness("Two1", 2, 1), nodes_harness("One2", 2, 2),
                                         nodes_harness("Two2", 4, 2), nodes_harness("Two4", 8, 4),
                                         nodes_harness("Four2", 8, 2), nodes_harness("Two3", 6, 3),
                                         nodes_harness("Three2", 6, 2),
                                         nodes_harness("UnequalTwoTwoOne", 5, 2),
                                         nodes_harness("Automatic", 4, 2, {}),
                                         nodes_harness("Flat", 4, 2, {.all_to_all = AllToAll::flat}),
                                         nodes_harness("Chunked", 4, 2, kByNodes, 24),
                                         dealt_harness("Dealt", 8, 2), dealt_harness("DealtThree", 6, 3)),
                         harness_name);

TEST(ThreadRanks, FirstExceptionReachesTheCallerAndReleasesThePeers) {
  std::vector<std::string> peers(4);
  const auto run = [&] {
    run_on_threads(4, [&](Communicator& world) {
      const auto pair = world.split(world.rank() / 2, 0, "pair");
      if (world.rank() == 2) throw std::runtime_error("rank 2 broke");
      const size_t rank = static_cast<size_t>(world.rank());
      peers[rank] = message_of(ErrorKind::communication, [&] {
        pair->barrier();
        world.barrier();
      });
    });
  };
  try {
    run();
    FAIL() << "expected the exception of rank 2";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "rank 2 broke");
  }
  for (const size_t rank : {0, 1, 3}) {
    EXPECT_THAT(peers[rank], AllOf(HasSubstr("rank 2 failed first"), HasSubstr("rank 2 broke"))) << rank;
  }
}

TEST(ThreadRanks, NobodyMeetsARankThatIsGone) {
  std::atomic<bool> gone = false;
  const auto run = [&] {
    run_on_threads(3, [&](Communicator& world) {
      auto pair = world.split(world.rank() / 2, 0, "pair");
      if (world.rank() == 2) throw std::runtime_error("rank 2 broke");
      while (world.rank() == 1 && !gone) std::this_thread::yield();
      EXPECT_THAT(message_of(ErrorKind::communication, [&] { pair->barrier(); }),
                  HasSubstr("rank 2 failed first"));
      if (world.rank() == 1) return;
      pair.reset();
      gone = true;
    });
  };
  EXPECT_THROW(run(), std::runtime_error);
}

TEST(ThreadRanks, DifferentCollectivesAreAnError) {
  Stream stream;
  const std::string message = message_of(ErrorKind::communication, [&] {
    run_on_threads(2, [&](Communicator& world) {
      contract::Buffer<float> buffer({2});
      if (world.rank() == 0) {
        world.barrier();
      } else {
        world.broadcast(buffer.tensor, 0, stream);
      }
    });
  });
  EXPECT_THAT(message, AllOf(HasSubstr("[barrier #1"), HasSubstr("[broadcast #1 of 8 bytes"),
                             HasSubstr("must enter the same collective")));
}

TEST(ThreadRanks, DifferentSizesAreAnError) {
  Stream stream;
  const std::string message = message_of(ErrorKind::communication, [&] {
    run_on_threads(2, [&](Communicator& world) {
      contract::Buffer<float> buffer({world.rank() + 1});
      world.all_reduce(buffer.tensor, ReduceOp::sum, ReduceOrder::any, stream);
    });
  });
  EXPECT_THAT(message, HasSubstr("must enter the same collective"));
}

TEST(ThreadRanks, CountsThatDoNotMatchAreAnError) {
  Stream stream;
  const std::string message = message_of(ErrorKind::communication, [&] {
    run_on_threads(2, [&](Communicator& world) {
      contract::Buffer<float> input({4, 1}), output({4, 1});
      const std::vector<int64_t> send = {1, 1}, receive = {1, world.rank() == 1 ? 1 : 2};
      const std::vector<int64_t> receive_at_1 = {2, 1};
      world.all_to_all_v(input.tensor, send, output.tensor, world.rank() == 1 ? receive_at_1 : receive,
                         stream);
    });
  });
  EXPECT_THAT(message, AllOf(HasSubstr("expects 8 bytes from rank"), HasSubstr("which sends 4")));
}

TEST(ThreadRanks, ReturningEarlyIsAnError) {
  const std::string message = message_of(ErrorKind::communication, [] {
    run_on_threads(3, [](Communicator& world) {
      if (world.rank() != 1) world.barrier();
    });
  });
  EXPECT_THAT(message, AllOf(HasSubstr("returned without entering"), HasSubstr("rank 1")));
}

TEST(ThreadRanks, EachRankHasOneOpenMpThread) {
  run_on_threads(2, [](Communicator&) { EXPECT_EQ(thread_count(), 1); });
  EXPECT_THAT(message_of(ErrorKind::argument, [] { run_on_threads(0, [](Communicator&) {}); }),
              HasSubstr("at least 1 rank"));
}

std::function<const char*(const char*)> lookup_in(const std::map<std::string, std::string>& environment) {
  return [environment](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  };
}

TEST(MpiLauncher, IsDetectedFromTheEnvironment) {
  const auto started = [](const std::map<std::string, std::string>& environment) {
    return started_by_mpi_launcher(lookup_in(environment));
  };
  EXPECT_FALSE(started({}));
  EXPECT_TRUE(started({{"OMPI_COMM_WORLD_SIZE", "1"}}));
  EXPECT_TRUE(started({{"PMIX_RANK", "0"}}));
  EXPECT_TRUE(started({{"PMI_RANK", "3"}}));
  EXPECT_FALSE(started({{"PMI_RANK", ""}}));
  EXPECT_TRUE(started({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}}));
  EXPECT_FALSE(started({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "1"}}));
  EXPECT_FALSE(started({{"SLURM_NTASKS", "2"}}));
}

TEST(MpiLauncher, TellsTheRankBeforeMpiStarts) {
  const auto rank = [](const std::map<std::string, std::string>& environment) {
    return launched_rank(lookup_in(environment));
  };
  EXPECT_EQ(rank({}), 0);
  EXPECT_EQ(rank({{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "3"}}), 3);
  EXPECT_EQ(rank({{"PMIX_RANK", "2"}}), 2);
  EXPECT_EQ(rank({{"PMI_RANK", "1"}}), 1);
  EXPECT_EQ(rank({{"SLURM_PROCID", "5"}, {"SLURM_NTASKS", "8"}}), 5);
  EXPECT_EQ(rank({{"SLURM_PROCID", "5"}, {"SLURM_NTASKS", "1"}}), 0);
}

TEST(ProcessGroups, AreThoseOfThePlan) {
  run_on_threads(4, [](Communicator& world) {
    const auto expect_members = [&](Communicator& group, const RankAxis& axis) {
      const std::vector<std::string> texts = group.all_gather_text(std::to_string(world.rank()));
      std::vector<int> ranks;
      for (const std::string& text : texts) ranks.push_back(std::stoi(text));
      EXPECT_EQ(ranks, axis.members(world.rank())) << axis.name;
    };
    for (const AxisSizes sizes : {AxisSizes{}, AxisSizes{.tp = 2}}) {
      const ProcessGroups groups(world, ParallelPlan(4, {1, 2, 4}, sizes));
      for (const int ep : {1, 2, 4}) {
        expect_members(groups.ep(ep), groups.plan().ep(ep));
        expect_members(groups.expert_dp(ep), groups.plan().expert_dp(ep));
      }
      expect_members(groups.dp(), groups.plan().dp());
      expect_members(groups.tp(), groups.plan().tp());
      expect_members(groups.cp(), groups.plan().cp());
      expect_members(groups.pp(), groups.plan().pp());
      EXPECT_EQ(&groups.world(), &world);
      EXPECT_EQ(&groups.dp() == &world, sizes.tp == 1);
    }
    const ProcessGroups groups(world, ParallelPlan(4, {2}));
    EXPECT_THAT(message_of(ErrorKind::internal, [&] { groups.ep(3); }), HasSubstr("3 was not planned"));
  });
}

// Whoever finds this process hanging finds the collective there.
TEST(FlightLogOfACommunicator, HasEveryCollectiveOfTwoAndMore) {
  const int64_t before = flight_log().progress();
  run_on_threads(1, [](Communicator& world) { world.barrier(); });
  EXPECT_EQ(flight_log().progress(), before);
  run_on_threads(2, [](Communicator& world) {
    const auto expect_noted = [&](const char* name) {
      bool found = false;
      for (const FlightEvent& event : flight_log().events()) {
        found |= event.name == name && event.group == "world" &&
                 event.sequence == world.last_collective().sequence && event.ended > 0;
      }
      EXPECT_TRUE(found) << name;
    };
    Stream stream;
    std::vector<float> from(4), to(4);
    const Tensor two(from.data(), DType::f32, {2}), four(from.data(), DType::f32, {4}),
        other(to.data(), DType::f32, {4}), half(to.data(), DType::f32, {2});
    const std::vector<int64_t> rows = {1, 1};
    world.barrier();
    expect_noted("barrier");
    world.broadcast(four, 0, stream).wait();
    expect_noted("broadcast");
    world.all_reduce(four, ReduceOp::sum, ReduceOrder::any, stream).wait();
    expect_noted("all_reduce");
    world.all_gather(two, other, stream).wait();
    expect_noted("all_gather");
    world.reduce_scatter(four, half, ReduceOrder::any, stream).wait();
    expect_noted("reduce_scatter");
    world.all_to_all(four, other, stream).wait();
    expect_noted("all_to_all");
    world.all_to_all_v(four, rows, other, rows, stream).wait();
    expect_noted("all_to_all_v");
    world.all_gather_text("text");
    expect_noted("all_gather_text");
    const int64_t sequence = world.last_collective().sequence + 1;
    world.split(0, 0, "part");
    EXPECT_EQ(world.last_collective().sequence, sequence);
    expect_noted("split");
  });
  EXPECT_FALSE(flight_log().waits());
}

TEST(ProcessGroups, RefuseAPlanOfOthers) {
  EXPECT_THAT(
      message_of(
          ErrorKind::internal,
          [] { run_on_threads(2, [](Communicator& world) { ProcessGroups(world, ParallelPlan(4, {2})); }); }),
      HasSubstr("for 4 ranks, the job has 2"));
  EXPECT_THAT(message_of(ErrorKind::communication,
                         [] {
                           run_on_threads(2, [](Communicator& world) {
                             ProcessGroups(world, ParallelPlan(2, {world.rank() + 1}));
                           });
                         }),
              HasSubstr("give every rank the same config"));
}

}  // namespace
}  // namespace ziggurat
