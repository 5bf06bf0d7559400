// Groups on several nodes: what goes which way, in how many messages, and how it ends when it goes wrong.
#include <functional>
#include <stdexcept>

#include <gmock/gmock.h>

#include "tests/comm/values.h"
#include <ziggurat/comm/thread.h>

namespace ziggurat {
namespace {

using contract::Buffer;
using contract::message_of;
using testing::AllOf;
using testing::HasSubstr;

constexpr NodeOptions kByNodes = {.all_to_all = AllToAll::hierarchical, .sums_from = 1};

NodeOptions on_node(int node, NodeOptions options) {
  options.node = node;
  return options;
}

// What one call sent, by level.
template <class Call>
TrafficByLevel traffic_of(Communicator& group, const Call& call) {
  const TrafficByLevel before = group.traffic();
  call();
  const TrafficByLevel& after = group.traffic();
  const auto difference = [](const Traffic& a, const Traffic& b) {
    return Traffic{b.messages - a.messages, b.bytes - a.bytes};
  };
  return {difference(before.inside, after.inside), difference(before.between, after.between)};
}

// Two rows of 12 bytes to each rank.
void all_to_all(Communicator& group) {
  Stream stream;
  Buffer<float> input({2 * group.size(), 3}), output({2 * group.size(), 3});
  group.all_to_all(input.tensor, output.tensor, stream).wait();
}

void all_to_all_v(Communicator& group, int64_t rows_each) {
  Stream stream;
  const std::vector<int64_t> rows(static_cast<size_t>(group.size()), rows_each);
  Buffer<float> input({rows_each * group.size(), 3}), output({rows_each * group.size(), 3});
  group.all_to_all_v(input.tensor, rows, output.tensor, rows, stream).wait();
}

TEST(Nodes, MessagesAreThoseOfTheNodeAndOneForEveryOther) {
  for (const auto& [ranks, each] : {std::pair(8, 4), {8, 2}, {16, 4}}) {
    const int P = ranks, G = each, N = ranks / each;
    run_on_threads(P, [&](Communicator& world) {
      world.use_nodes(on_node(world.rank() / G, {.all_to_all = AllToAll::flat}));
      const TrafficByLevel flat = traffic_of(world, [&] { all_to_all(world); });
      EXPECT_EQ(flat.inside, (Traffic{G - 1, 24 * (G - 1)}));
      EXPECT_EQ(flat.between, (Traffic{P - G, 24 * (P - G)}));
      EXPECT_EQ(traffic_of(world, [&] { all_to_all_v(world, 2); }).between, flat.between);

      world.use_nodes(on_node(world.rank() / G, kByNodes));
      const TrafficByLevel even = traffic_of(world, [&] { all_to_all(world); });
      EXPECT_EQ(even.inside, (Traffic{G - 1, 24 * N * (G - 1)}));
      EXPECT_EQ(even.between, (Traffic{N - 1, flat.between.bytes}));
      // Peers also tell each other N sizes, and nodes G.
      const TrafficByLevel uneven = traffic_of(world, [&] { all_to_all_v(world, 2); });
      EXPECT_EQ(uneven.inside, (Traffic{2 * (G - 1), even.inside.bytes + 8 * N * (G - 1)}));
      EXPECT_EQ(uneven.between, (Traffic{N - 1, even.between.bytes + 8 * G * (N - 1)}));
    });
  }
}

TEST(Nodes, NothingIsSentToNobodyAndWithoutNodesAllIsInside) {
  run_on_threads(4, [](Communicator& world) {
    all_to_all_v(world, 0);
    EXPECT_EQ(world.traffic().inside, Traffic{});
    all_to_all(world);
    EXPECT_EQ(world.traffic().inside, (Traffic{3, 72}));
    EXPECT_EQ(world.traffic().between, Traffic{});
  });
}

TEST(Nodes, AutomaticGoesByNodesWithSmallBlocksAndAllRanksAlike) {
  run_on_threads(8, [](Communicator& world) {
    world.use_nodes(on_node(world.rank() / 4, {}));
    const auto messages = [&](const auto& call) { return traffic_of(world, call).between.messages; };
    EXPECT_EQ(messages([&] { all_to_all(world); }), 1);
    EXPECT_EQ(messages([&] { all_to_all_v(world, 2); }), 1);
    // Only rank 5 sends much, and only rank 0 gets it: the others, too, have to find out.
    const auto one_sends = [&] {
      Stream stream;
      constexpr int64_t kRows = 100000;
      std::vector<int64_t> send(8, 0), receive(8, 0);
      if (world.rank() == 5) send[0] = kRows;
      if (world.rank() == 0) receive[5] = kRows;
      Buffer<int32_t> input({send[0]}, 7), output({receive[5]});
      world.all_to_all_v(input.tensor, send, output.tensor, receive, stream).wait();
      for (const int32_t value : output.values) ASSERT_EQ(value, 7);
    };
    one_sends();  // their second call: they agree that it is much
    EXPECT_EQ(messages([&] { all_to_all_v(world, 2); }), 4);
    EXPECT_EQ(messages([&] { all_to_all(world); }), 1);
  });
}

TEST(Nodes, GroupsSplitLaterKnowTheirNodes) {
  run_on_threads(8, [](Communicator& world) {
    world.use_nodes(on_node(world.rank() / 2, kByNodes));
    const auto half = world.split(world.rank() / 4, world.rank(), "half");  // two nodes
    EXPECT_EQ(traffic_of(*half, [&] { all_to_all(*half); }).between.messages, 1);
    const auto node = world.split(world.rank() / 2, world.rank(), "node");
    EXPECT_EQ(traffic_of(*node, [&] { all_to_all(*node); }), (TrafficByLevel{{1, 24}, {}}));
    const auto strided = world.split(world.rank() % 2, world.rank(), "strided");  // one rank a node: flat
    EXPECT_EQ(traffic_of(*strided, [&] { all_to_all(*strided); }), (TrafficByLevel{{}, {3, 72}}));
    const auto unequal = world.split(world.rank() < 3 ? 0 : 1, world.rank(), "unequal");
    const TrafficByLevel flat = traffic_of(*unequal, [&] { all_to_all(*unequal); });
    EXPECT_EQ(flat.inside.messages + flat.between.messages, unequal->size() - 1);
  });
}

// The sums of nodes' messages agree; the blocks in them don't.
TEST(Nodes, BlocksOfOtherSizesThanExpectedAreNamed) {
  const std::string message = message_of(ErrorKind::communication, [&] {
    run_on_threads(4, [](Communicator& world) {
      world.use_nodes(on_node(world.rank() / 2, kByNodes));
      Stream stream;
      std::vector<int64_t> send(4, 0), receive(4, 0);
      if (world.rank() == 0) send[3] = 2;
      if (world.rank() == 1) send[3] = 1;
      if (world.rank() == 3) receive = {1, 2, 0, 0};
      Buffer<float> input({3, 1}), output({3, 1});
      world.all_to_all_v(input.tensor, send, output.tensor, receive, stream).wait();
    });
  });
  EXPECT_THAT(message, AllOf(HasSubstr("[all_to_all_v #"), HasSubstr("on 'world', rank 3 of 4]"),
                             HasSubstr("expects 4 bytes from rank 0, which sends 8")));
}

TEST(Nodes, OtherSizesOfAMessageNameItsStage) {
  const std::string message = message_of(ErrorKind::communication, [&] {
    run_on_threads(4, [](Communicator& world) {
      world.use_nodes(on_node(world.rank() / 2, kByNodes));
      Stream stream;
      std::vector<int64_t> send(4, 0), receive(4, 0);
      if (world.rank() == 0) send[2] = 2;
      if (world.rank() == 2) receive[0] = 1;
      Buffer<float> input({2, 1}), output({2, 1});
      world.all_to_all_v(input.tensor, send, output.tensor, receive, stream).wait();
    });
  });
  EXPECT_THAT(message, AllOf(HasSubstr("[all_to_all_v #2"),
                             HasSubstr("on 'world, between nodes', rank 1 of 2"), HasSubstr("from rank 0")));
}

// Rank 3 never comes: rank 2 would wait for it inside their node, and ranks 0 and 1 for both between nodes.
TEST(Nodes, AFailedRankEndsEveryStage) {
  std::vector<std::string> peers(4);
  const auto run = [&] {
    run_on_threads(4, [&](Communicator& world) {
      world.use_nodes(on_node(world.rank() / 2, kByNodes));
      if (world.rank() == 3) throw std::runtime_error("rank 3 broke");
      peers[static_cast<size_t>(world.rank())] =
          message_of(ErrorKind::communication, [&] { all_to_all(world); });
    });
  };
  EXPECT_THROW(run(), std::runtime_error);
  for (const size_t rank : {0, 1, 2}) {
    EXPECT_THAT(peers[rank], AllOf(HasSubstr("[all_to_all #2"), HasSubstr(" nodes'"),
                                   HasSubstr("rank 3 failed first: rank 3 broke")));
  }
  EXPECT_THAT(peers[2], HasSubstr("'world, inside nodes'"));
}

TEST(Nodes, OptionsAreTheSameOnAllRanks) {
  const auto options_of = [](const std::function<NodeOptions(int)>& of_rank) {
    return [=] { run_on_threads(2, [&](Communicator& world) { world.use_nodes(of_rank(world.rank())); }); };
  };
  EXPECT_THAT(message_of(ErrorKind::communication, options_of([](int rank) {
                           return NodeOptions{.all_to_all = rank == 0 ? AllToAll::flat : AllToAll::automatic};
                         })),
              HasSubstr("give every rank the same config"));
  EXPECT_THAT(message_of(ErrorKind::communication,
                         options_of([](int rank) { return NodeOptions{.sums_from = rank}; })),
              HasSubstr("give every rank the same config"));
  EXPECT_THAT(message_of(ErrorKind::argument, options_of([](int) { return NodeOptions{.node = -1}; })),
              AllOf(HasSubstr("[use_nodes #1"), HasSubstr("must not be negative, got -1")));
}

}  // namespace
}  // namespace ziggurat
