// Collectives between devices, beyond the contract: who waits for what, and what is said when one fails.
#include <thread>

#include <gmock/gmock.h>

#include "tests/emulation/emulated_test.h"
#include "tests/emulation/lib/device_group.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device_work.h>
#include <ziggurat/runtime/graph.h>

namespace ziggurat::emulation {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class DeviceTensors : public EmulatedTest {
 protected:
  ~DeviceTensors() override {
    give_each_thread_a_device(true);
    break_links("");
  }
};

constexpr int64_t kN = 64;

std::vector<int32_t> values_of(const Tensor& tensor, Stream& by) {
  std::vector<int32_t> here(static_cast<size_t>(tensor.numel()));
  copy(tensor, Tensor(here.data(), DType::i32, {tensor.numel()}), by);
  by.wait();
  return here;
}

// Memory of a rank: what it sends, and what it looks at.
struct Rank {
  explicit Rank(Communicator& world) : mine(allocate(arena, DType::i32, {kN})) {
    std::vector<int32_t> values(kN, world.rank() + 1);
    copy(Tensor(values.data(), DType::i32, {kN}), mine, stream);
    stream.wait();
  }
  std::vector<int32_t> values(Stream& by) const { return values_of(mine, by); }

  Arena arena{"test", 1 << 14, Device::cuda};
  Stream stream{Device::cuda};
  Tensor mine;
};

void on_devices(int ranks, const std::function<void(Communicator&)>& body) {
  run_on_threads(ranks, [&](Communicator& world) {
    EXPECT_EQ(world.use_devices(), "");
    body(world);
  });
}

void sum(Communicator& world, Rank& rank) {
  world.all_reduce(rank.mine, ReduceOp::sum, ReduceOrder::any, rank.stream).wait();
}

TEST_F(DeviceTensors, TheHostDoesNotWaitAndTheNumberOfCollectivesDoesNotMatter) {
  on_devices(2, [](Communicator& world) {
    Rank rank(world);
    const int64_t before = device_work().waits;
    for (int i = 0; i < 5; ++i) sum(world, rank);
    EXPECT_EQ(device_work().waits, before);
    EXPECT_EQ(rank.values(rank.stream), std::vector<int32_t>(kN, 3 * 16));
  });
  EXPECT_EQ(counts("all_reduce").launches, 5);
}

// Work that comes before and after on the stream, in every order that the device may choose.
TEST_F(DeviceTensors, CollectivesStandInTheOrderOfTheStream) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    reset(seed);
    on_devices(3, [](Communicator& world) {
      Rank rank(world);
      const Tensor all = allocate(rank.arena, DType::i32, {3 * kN});
      const Tensor third = all.rows(kN, 2 * kN);  // of rank 1
      for (int i = 0; i < 3; ++i) {
        world.all_gather(rank.mine, all, rank.stream).wait();
        copy(third, rank.mine, rank.stream);
        sum(world, rank);
      }
      EXPECT_EQ(rank.values(rank.stream), std::vector<int32_t>(kN, 2 * 27));
    });
  }
}

TEST_F(DeviceTensors, AnotherStreamWaitsByAnEvent) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    reset(seed);
    on_devices(2, [](Communicator& world) {
      Rank rank(world);
      Stream other(Device::cuda);
      Event summed(Device::cuda);
      sum(world, rank);
      summed.record(rank.stream);
      summed.hold(other);
      EXPECT_EQ(rank.values(other), std::vector<int32_t>(kN, 3));
      rank.stream.wait();
    });
  }
}

// What has begun goes on beside the stream, which finds the results once it waited for the Work, by an event:
// the host does not.
TEST_F(DeviceTensors, WhatHasBegunIsThereAfterItsWork) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    reset(seed);
    on_devices(2, [](Communicator& world) {
      Rank rank(world);
      const Tensor other = allocate(rank.arena, DType::i32, {kN}),
                   third = allocate(rank.arena, DType::i32, {kN}), half = third.rows(0, kN / 2);
      const Tensor there = allocate(rank.arena, DType::i32, {kN});
      const std::vector<int64_t> halves(2, kN / 2);
      const auto begin_all = [&] {
        copy(rank.mine, other, rank.stream);
        copy(rank.mine, third, rank.stream);
        Work sum = world.begin_all_reduce(rank.mine, ReduceOrder::any, rank.stream);
        Work exchange = world.begin_all_to_all_v(other, halves, there, halves, rank.stream);
        Work scatter =
            world.begin_reduce_scatter(third, third.rows(world.rank() * kN / 2, (world.rank() + 1) * kN / 2),
                                       ReduceOrder::any, rank.stream);
        sum.wait(), exchange.wait(), scatter.wait();
      };
      begin_all();  // makes the group
      const int64_t before = device_work().waits;
      begin_all();
      EXPECT_EQ(device_work().waits, before);
      EXPECT_EQ(rank.values(rank.stream), std::vector<int32_t>(kN, 6));
      EXPECT_EQ(values_of(half, rank.stream), std::vector<int32_t>(kN / 2, world.rank() == 0 ? 6 : 3));
      EXPECT_EQ(values_of(there, rank.stream), std::vector<int32_t>(kN, 3));
    });
  }
}

// Whoever does not wait for the Work reads, in some order of the device's, what was there before.
TEST_F(DeviceTensors, AMissingEventShows) {
  bool wrong = false;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    reset(seed);
    on_devices(2, [&](Communicator& world) {
      Rank rank(world);
      Work sum = world.begin_all_reduce(rank.mine, ReduceOrder::any, rank.stream);
      if (rank.values(rank.stream) != std::vector<int32_t>(kN, 3) && world.rank() == 0) wrong = true;
      sum.wait();
      rank.stream.wait();
    });
  }
  EXPECT_TRUE(wrong);
}

// A graph's collectives meet anew in every launch, also those that go on beside its stream.
TEST_F(DeviceTensors, GraphsHoldCollectives) {
  on_devices(2, [](Communicator& world) {
    Rank rank(world);
    const auto work = [&] {
      Work begun = world.begin_all_reduce(rank.mine, ReduceOrder::any, rank.stream);
      begun.wait();
      sum(world, rank);
    };
    work();
    rank.stream.wait();
    Graph graph = Graph::record(rank.stream, work);
    for (int i = 0; i < 3; ++i) graph.launch(rank.stream);
    EXPECT_EQ(rank.values(rank.stream), std::vector<int32_t>(kN, 3 * 2 * 4 * 4 * 4));
    rank.stream.wait();
  });
}

// Rank 1 has queued nothing when rank 0 begins to wait.
TEST_F(DeviceTensors, AHostThatWaitsLetsTheOthersQueueTheirParts) {
  on_devices(2, [](Communicator& world) {
    Rank rank(world);
    sum(world, rank);  // makes the group
    if (world.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    sum(world, rank);
    EXPECT_EQ(rank.values(rank.stream), std::vector<int32_t>(kN, 6));
    rank.stream.wait();
  });
}

TEST_F(DeviceTensors, GroupsSplitFromAGroupOfDevicesAreSuchToo) {
  on_devices(4, [](Communicator& world) {
    Rank rank(world);
    const auto pair = world.split(world.rank() / 2, world.rank(), "pair");
    sum(world, rank);
    sum(*pair, rank);
    world.watch(rank.stream);
    EXPECT_EQ(rank.values(rank.stream), std::vector<int32_t>(kN, 20));
  });
  EXPECT_EQ(counts("all_reduce").launches, 3);
}

// A library promises no order of additions, so these go through the host.
TEST_F(DeviceTensors, FixedTreesAreLeftToTheHost) {
  on_devices(2, [](Communicator& world) {
    Rank rank(world);
    world.all_reduce(rank.mine, ReduceOp::sum, ReduceOrder::fixed_tree, rank.stream).wait();
    EXPECT_EQ(rank.values(rank.stream), std::vector<int32_t>(kN, 3));
  });
  EXPECT_EQ(counts("all_reduce").launches, 0);
}

TEST_F(DeviceTensors, RanksThatShareADeviceGoThroughTheHost) {
  give_each_thread_a_device(false);
  run_on_threads(2, [](Communicator& world) {
    EXPECT_EQ(world.use_devices(), "ranks 0 and 1 share the device emulated");
    Rank rank(world);
    sum(world, rank);
    world.watch(rank.stream);
    EXPECT_EQ(rank.values(rank.stream), std::vector<int32_t>(kN, 3));
  });
  EXPECT_EQ(counts("all_reduce").launches, 0);
}

// Its own part is queued, the peer's never comes: without a look at the links the host would wait for ever.
TEST_F(DeviceTensors, AFailedExchangeIsNamedAndItsStreamEnds) {
  on_devices(2, [](Communicator& world) {
    Rank rank(world);
    sum(world, rank);
    world.watch(rank.stream);
    world.barrier();
    if (world.rank() == 0) {
      sum(world, rank);
      break_links("a cable was pulled");
      try {
        world.watch(rank.stream);
        ADD_FAILURE() << "waited in vain";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::communication);
        EXPECT_THAT(error.what(), AllOf(HasSubstr("[all_reduce #"), HasSubstr("on 'world', rank 0 of 2]"),
                                        HasSubstr("a cable was pulled")));
      }
      EXPECT_THROW(sum(world, rank), Error);
    }
    rank.stream.wait();
  });
}

}  // namespace
}  // namespace ziggurat::emulation
