#include <atomic>
#include <random>
#include <thread>

#include <gtest/gtest.h>
#include <sched.h>

#include <ziggurat/core/timer.h>
#include <ziggurat/watch/slow_ranks.h>

namespace ziggurat::watch {
namespace {

constexpr double kLimit = 900;  // seconds, on a machine that is busy

std::vector<StepTime> computed(const std::vector<double>& seconds) {
  std::vector<StepTime> times;
  for (const double of_rank : seconds) times.push_back({.computed = of_rank});
  return times;
}

TEST(SlowRanks, NamesARankWithinTwentySteps) {
  SlowRanks ranks(4);
  for (int step = 0; step < 100; ++step) EXPECT_TRUE(ranks.add(computed({0.1, 0.1, 0.1, 0.1})).empty());
  int steps = 0;
  std::vector<SlowRanks::Verdict> found;
  while (found.empty() && ++steps < 100) found = ranks.add(computed({0.1, 0.1, 0.3, 0.1}));
  EXPECT_LE(steps, 20);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].rank, 2);
  EXPECT_TRUE(found[0].slow);
  EXPECT_LT(found[0].score(), 0.75);
  // Once, and once more when it is over.
  for (int step = 0; step < 50; ++step) EXPECT_TRUE(ranks.add(computed({0.1, 0.1, 0.3, 0.1})).empty());
  found.clear();
  for (steps = 0; found.empty() && ++steps < 100;) found = ranks.add(computed({0.1, 0.1, 0.1, 0.1}));
  EXPECT_LE(steps, 20);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_FALSE(found[0].slow);
}

TEST(SlowRanks, OneOfTwoIsNamedToo) {
  SlowRanks ranks(2);
  std::vector<SlowRanks::Verdict> found;
  for (int step = 0; step < 20 && found.empty(); ++step) found = ranks.add(computed({0.3, 0.1}));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].rank, 0);
}

// Ranks that share cores with others: any step may take several times as long, on any rank, and steps are
// short.
TEST(SlowRanks, NoFalseAlarmsOnABusyMachine) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (const double step_seconds : {0.01, 0.3}) {
    SlowRanks ranks(8);
    for (int step = 0; step < 10'000; ++step) {
      std::vector<double> seconds;
      for (int r = 0; r < 8; ++r) {
        const double preempted = uniform(random) < 0.2 ? 5 * uniform(random) : 0;
        seconds.push_back(step_seconds * (1 + 0.2 * uniform(random) + preempted));
      }
      EXPECT_TRUE(ranks.add(computed(seconds)).empty()) << "step " << step;
    }
  }
}

TEST(SlowRanks, MillisecondsAreTheSchedulers) {
  SlowRanks ranks(4);
  for (int step = 0; step < 100; ++step) EXPECT_TRUE(ranks.add(computed({0.01, 0.04, 0.01, 0.01})).empty());
}

// Another job on one rank's core: nobody's fault while it passes, and told as what it is where it stays.
TEST(SlowRanks, ASharedCoreIsNamedOnlyWhenItLasts) {
  const std::vector<StepTime> shared = {{.computed = 0.5}, {.computed = 1.0, .without_core = 0.5}};
  SlowRanks ranks(2);
  for (int step = 0; step < 100; ++step) EXPECT_TRUE(ranks.add(shared).empty()) << step;  // seconds, too
  for (int step = 0; step < 20; ++step) EXPECT_TRUE(ranks.add(computed({0.5, 0.5})).empty());
  std::vector<SlowRanks::Verdict> found;
  int steps = 0;
  while (found.empty() && ++steps < 1000) found = ranks.add(shared);
  EXPECT_GE(steps, SlowRanks::kShared);  // of a second each
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].rank, 1);
  EXPECT_TRUE(found[0].slow && found[0].shares_core);
  found.clear();
  for (steps = 0; found.empty() && ++steps < 100;) found = ranks.add(computed({0.5, 0.5}));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_FALSE(found[0].slow);
}

// A core that is shared now and then hides nobody who is slow anyway, and what waiting ranks lose of theirs
// makes none of the others slow.
TEST(SlowRanks, ASharedCoreIsNoExcuseForMore) {
  SlowRanks ranks(2);
  std::vector<SlowRanks::Verdict> found;
  const std::vector<StepTime> slow = {{.computed = 0.1, .without_core = 0.09},
                                      {.computed = 0.4, .without_core = 0.1}};
  for (int step = 0; step < 20 && found.empty(); ++step) found = ranks.add(slow);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].rank, 1);
  EXPECT_FALSE(found[0].shares_core);

  SlowRanks waiting(2);
  const std::vector<StepTime> even = {{.computed = 0.4, .without_core = 0.4}, {.computed = 0.4}};
  for (int step = 0; step < 1000; ++step) EXPECT_TRUE(waiting.add(even).empty());
}

TEST(SlowRanks, SecondsWithoutACoreGrowWhereTwoShareOne) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<size_t>(::sched_getcpu()), &one);
  std::atomic<bool> seen = false;
  const auto compute = [&] {
    EXPECT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
    const double before = seconds_without_core();
    for (const Timer timer; !seen && timer.seconds() < kLimit;) {
      if (seconds_without_core() - before > 0.1) seen = true;
    }
  };
  std::thread first(compute), second(compute);
  first.join(), second.join();
  EXPECT_TRUE(seen);
}

TEST(SlowRanks, OneRankIsAsFastAsItself) {
  SlowRanks ranks(1);
  for (int step = 0; step < 100; ++step) EXPECT_TRUE(ranks.add(computed({step % 2 + 0.1})).empty());
}

}  // namespace
}  // namespace ziggurat::watch
