#include <random>

#include <gtest/gtest.h>

#include <ziggurat/watch/slow_ranks.h>

namespace ziggurat::watch {
namespace {

TEST(SlowRanks, NamesARankWithinTwentySteps) {
  SlowRanks ranks(4);
  for (int step = 0; step < 100; ++step) EXPECT_TRUE(ranks.add(std::vector{0.1, 0.1, 0.1, 0.1}).empty());
  int steps = 0;
  std::vector<SlowRanks::Verdict> found;
  while (found.empty() && ++steps < 100) found = ranks.add(std::vector{0.1, 0.1, 0.3, 0.1});
  EXPECT_LE(steps, 20);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].rank, 2);
  EXPECT_TRUE(found[0].slow);
  EXPECT_LT(found[0].score(), 0.75);
  // Once, and once more when it is over.
  for (int step = 0; step < 50; ++step) EXPECT_TRUE(ranks.add(std::vector{0.1, 0.1, 0.3, 0.1}).empty());
  found.clear();
  for (steps = 0; found.empty() && ++steps < 100;) found = ranks.add(std::vector{0.1, 0.1, 0.1, 0.1});
  EXPECT_LE(steps, 20);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_FALSE(found[0].slow);
}

TEST(SlowRanks, OneOfTwoIsNamedToo) {
  SlowRanks ranks(2);
  std::vector<SlowRanks::Verdict> found;
  for (int step = 0; step < 20 && found.empty(); ++step) found = ranks.add(std::vector{0.3, 0.1});
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
      EXPECT_TRUE(ranks.add(seconds).empty()) << "step " << step;
    }
  }
}

TEST(SlowRanks, MillisecondsAreTheSchedulers) {
  SlowRanks ranks(4);
  for (int step = 0; step < 100; ++step) EXPECT_TRUE(ranks.add(std::vector{0.01, 0.04, 0.01, 0.01}).empty());
}

TEST(SlowRanks, OneRankIsAsFastAsItself) {
  SlowRanks ranks(1);
  for (int step = 0; step < 100; ++step) EXPECT_TRUE(ranks.add(std::vector{step % 2 + 0.1}).empty());
}

}  // namespace
}  // namespace ziggurat::watch
