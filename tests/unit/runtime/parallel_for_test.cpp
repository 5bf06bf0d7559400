#include <atomic>
#include <chrono>
#include <set>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/allocation_counter.h"
#include <ziggurat/core/error.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;

class Threads {
 public:
  explicit Threads(int n) : before_(thread_count()) { set_thread_count(n); }
  ~Threads() { set_thread_count(before_); }

 private:
  int before_;
};

// How often each of n units ran.
std::vector<int> runs_of(int64_t n) {
  std::vector<std::atomic<int>> counts(static_cast<size_t>(n));
  parallel_for(n, [&](int64_t i) { ++counts[static_cast<size_t>(i)]; });
  return {counts.begin(), counts.end()};
}

TEST(InPieces, EveryUnitRunsOnce) {
  const InPieces pieces;
  for (const int threads : {1, 2, 3, 4}) {
    const Threads some(threads);
    for (const int64_t n : {0, 1, 2, 3, 7, 64, 1000, 20000}) EXPECT_THAT(runs_of(n), Each(1)) << n;
  }
}

TEST(InPieces, BlocksCoverTheRange) {
  const InPieces pieces;
  const Threads two(2);
  for (const int64_t n : {1, 9, 10, 11, 1003}) {
    std::vector<std::atomic<int>> counts(static_cast<size_t>(n));
    parallel_for_blocks(n, 10, [&](int64_t begin, int64_t end) {
      EXPECT_EQ(begin % 10, 0);
      for (int64_t i = begin; i < end; ++i) ++counts[static_cast<size_t>(i)];
    });
    EXPECT_THAT(std::vector<int>(counts.begin(), counts.end()), Each(1));
  }
}

// Late threads of one loop must not touch the next: many short loops, each with its own answer on the stack.
TEST(InPieces, ShortLoopsFollowEachOther) {
  const InPieces pieces;
  const Threads three(3);
  for (int64_t loop = 0; loop < 20000; ++loop) {
    std::atomic<int64_t> sum = 0;
    const int64_t n = 2 + loop % 5;
    parallel_for(n, [&sum, loop](int64_t i) { sum += loop + i; });
    ASSERT_EQ(sum, n * loop + n * (n - 1) / 2);
  }
}

// The unit that another thread took may take long: the loop has ended only when that is done too.
TEST(InPieces, ALoopEndsWithItsLastPiece) {
  const InPieces pieces;
  const Threads two(2);
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> done = 0;
    parallel_for(2, [&](int64_t) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      ++done;
    });
    EXPECT_EQ(done, 2);
  }
}

TEST(InPieces, InsideAPieceThereIsOneThread) {
  const InPieces pieces;
  const Threads two(2);
  std::atomic<int> most = 0, indices = 0;
  parallel_for(100, [&](int64_t) {
    const int index = thread_index();
    indices |= 1 << index;
    most = std::max(most.load(), thread_count());
    parallel_for(3, [&](int64_t) { EXPECT_EQ(thread_index(), index); });
  });
  EXPECT_EQ(most, 1);
  EXPECT_EQ(indices & ~3, 0);  // 0, and 1 if the other thread came in time
  EXPECT_EQ(thread_count(), 2);
}

TEST(InPieces, OnEveryThreadOnce) {
  const InPieces pieces;
  for (const int threads : {1, 2, 4}) {
    const Threads some(threads);
    for (int round = 0; round < 10; ++round) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(threads));
      on_every_thread([&] { ++calls[static_cast<size_t>(thread_index())]; });
      EXPECT_THAT(std::vector<int>(calls.begin(), calls.end()), Each(1));
    }
  }
}

// Not where the caller loses its patience with the others either, which only a busy machine shows elsewhere.
TEST(InPieces, WaitingAllocatesNothing) {
  const InPieces pieces;
  const Threads two(2);
  const auto wait_for_the_other = [] {
    on_every_thread([] {
      if (thread_index() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    });
  };
  wait_for_the_other();  // which starts the other
  const int64_t before = test::allocation_count();
  for (int round = 0; round < 5; ++round) wait_for_the_other();
  EXPECT_EQ(test::allocation_count(), before);
}

TEST(InPieces, CallersOnSeveralThreadsDoNotMeet) {
  std::vector<std::thread> callers;
  std::atomic<int> wrong = 0;
  for (int c = 0; c < 3; ++c) {
    callers.emplace_back([&wrong] {
      const InPieces pieces;
      const Threads two(2);
      for (int loop = 0; loop < 500; ++loop) {
        for (const int n : runs_of(17)) wrong += n != 1;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST(InPieces, AForkedProcessHasThreadsOfItsOwn) {
  const InPieces pieces;
  const Threads two(2);
  EXPECT_THAT(runs_of(100), Each(1));
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    bool good = true;
    for (const int n : runs_of(100)) good = good && n == 1;
    _exit(good ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(ThreadCount, MoreThanAFewTimesTheCoresIsRefusedByItsName) {
  const int before = thread_count(), most = kThreadsPerCore * available_cores();
  set_thread_count(most);
  EXPECT_EQ(thread_count(), most);
  set_thread_count(before);
  for (const int n : {most + 1, 5000, 2147483647}) {
    try {
      set_thread_count(n, "--threads");
      FAIL() << n << " threads";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::config);
      EXPECT_THAT(error.what(), AllOf(HasSubstr("--threads: expected at most " + std::to_string(most)),
                                      HasSubstr("got " + std::to_string(n))));
    }
  }
  EXPECT_EQ(thread_count(), before);
}

TEST(ThreadCount, SharedCoresAreToldAndSharesAreNot) {
  const int before = thread_count(), cores = available_cores();
  EXPECT_EQ(choose_thread_count(0, "threads"), "");
  EXPECT_EQ(thread_count(), cores);
  EXPECT_EQ(choose_thread_count(0, "threads", cores), "");
  EXPECT_EQ(thread_count(), 1);
  EXPECT_THAT(choose_thread_count(2 * cores, "threads"), HasSubstr("(2 times as many)"));
  const auto machine = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  EXPECT_THAT(choose_thread_count(cores, "threads", 2 * machine), HasSubstr("share"));
  set_thread_count(before);
}

}  // namespace
}  // namespace ziggurat
