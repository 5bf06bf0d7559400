// One outcome and one set of values for all ranks.
#include <array>
#include <atomic>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/agreement.h>
#include <ziggurat/comm/thread.h>

namespace ziggurat {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ziggurat::testing::error_of;

TEST(Agreement, GivesEveryAnswerToEveryRank) {
  run_on_threads(3, [](Communicator& comm) {
    EXPECT_THAT(agree(comm, [&] { return std::string(static_cast<size_t>(comm.rank()), 'x'); }),
                ElementsAre("", "x", "xx"));
    EXPECT_EQ(on_rank_0(comm, [&] { return fmt::format("rank {}", comm.rank()); }), "rank 0");
  });
}

TEST(Agreement, TheLowestRanksErrorIsEveryones) {
  std::atomic<int> told = 0;
  run_on_threads(4, [&](Communicator& comm) {
    const std::string message = error_of(ErrorKind::data, [&] {
      agree(comm, [&]() -> std::string {
        check(comm.rank() < 2, ErrorKind::data, "no shards on {}", comm.rank());
        return "";
      });
    });
    EXPECT_THAT(message, AllOf(HasSubstr("no shards on 2"), HasSubstr("rank 2 of 4")));
    ++told;
  });
  EXPECT_EQ(told, 4);
}

TEST(Agreement, ARankThatIsAloneIsNotNamed) {
  const auto alone = make_self_communicator();
  const auto work = []() -> std::string { fail(ErrorKind::data, "no shards"); };
  EXPECT_EQ(error_of(ErrorKind::data, [&] { agree(*alone, work); }), "no shards");
}

TEST(Agreement, OtherExceptionsGetTheCallersKind) {
  run_on_threads(2, [](Communicator& comm) {
    const auto work = []() -> std::string { throw std::runtime_error("odd"); };
    EXPECT_THAT(error_of(ErrorKind::checkpoint, [&] { agree(comm, work, ErrorKind::checkpoint); }),
                HasSubstr("odd"));
    error_of(ErrorKind::internal, [&] { on_rank_0(comm, work); });
  });
}

TEST(Agreement, MemoryThatIsLackingIsToldWithItsLimits) {
  run_on_threads(2, [](Communicator& comm) {
    const auto work = [&]() -> std::string {
      if (comm.rank() == 1) throw std::bad_alloc();
      return "";
    };
    EXPECT_THAT(error_of(ErrorKind::device, [&] { agree(comm, work, ErrorKind::checkpoint); }),
                AllOf(HasSubstr("no memory is left"), HasSubstr("rank 1 of 2")));
  });
}

TEST(Share, EveryPieceIsDoneOnceAndAnsweredInOrder) {
  for (const int ranks : {1, 2, 3, 7}) {
    std::array<std::atomic<int>, 5> times = {};
    run_on_threads(ranks, [&](Communicator& comm) {
      const auto work = [&](size_t i) {
        EXPECT_EQ(static_cast<int>(i) % ranks, comm.rank());
        ++times[i];
        return std::to_string(i);
      };
      EXPECT_THAT(share(comm, times.size(), work), ElementsAre("0", "1", "2", "3", "4"));
      EXPECT_THAT(share(comm, 0, work), ElementsAre());
    });
    for (const auto& n : times) EXPECT_EQ(n, 1);
  }
}

TEST(Share, AnErrorEndsAllAfterItsRound) {
  std::atomic<int> done = 0, told = 0;
  run_on_threads(2, [&](Communicator& comm) {
    const auto work = [&](size_t i) {
      check(i != 1, ErrorKind::data, "piece {} broke", i);
      ++done;
      return std::string();
    };
    EXPECT_THAT(error_of(ErrorKind::data, [&] { share(comm, 10, work); }),
                AllOf(HasSubstr("piece 1 broke"), HasSubstr("rank 1 of 2")));
    ++told;
  });
  EXPECT_EQ(told, 2);
  EXPECT_EQ(done, 1);
}

TEST(Share, ProgressReachesTheTotalOnEveryRank) {
  const std::vector<int64_t> sizes = {30, 10, 20};
  run_on_threads(2, [&](Communicator& comm) {
    std::vector<int64_t> told;
    SharedProgress progress(comm, sizes, [&](int64_t done, int64_t total) {
      EXPECT_EQ(total, 60);
      told.push_back(done);
    });
    if (comm.rank() == 0) {
      for (const int64_t part : {25, 25}) progress.add(part);
      EXPECT_THAT(told, ElementsAre(30, 60));  // half of 50 of its own is taken for half of 60
    } else {
      progress.add(10);
      EXPECT_THAT(told, ElementsAre(60));
    }
  });
}

TEST(SameOnAllRanks, NamesKeysValuesAndRanks) {
  std::atomic<int> told = 0;
  for (const int ranks : {2, 3, 4}) {
    run_on_threads(ranks, [&](Communicator& comm) {
      std::vector<NamedValue> values = {{"a", "equal"}, {"seed", comm.rank() == 1 ? "2" : "1"}};
      if (comm.rank() == ranks - 1) values.push_back({"extra", "x"});
      const std::string message = error_of(ErrorKind::config, [&] { check_same_on_all_ranks(comm, values); });
      EXPECT_THAT(message, AllOf(HasSubstr("2 (rank 1)"), HasSubstr("extra: "), HasSubstr("(absent) ("),
                                 Not(HasSubstr("equal"))));
      if (ranks == 4) {
        EXPECT_THAT(message, HasSubstr("seed: 1 (ranks 0, 2-3), 2 (rank 1)"));
      }
      ++told;
    });
  }
  EXPECT_EQ(told, 9);
}

TEST(SameOnAllRanks, EqualValuesPass) {
  for (const int ranks : {1, 2, 3}) {
    run_on_threads(ranks, [](Communicator& comm) {
      const std::vector<NamedValue> values = {{"a", "1"}, {"bytes", "\xff\x00"}};
      check_same_on_all_ranks(comm, values);
      check_same_on_all_ranks(comm, {});
    });
  }
}

}  // namespace
}  // namespace ziggurat
