#include <chrono>

#include <gtest/gtest.h>

#include <ziggurat/watch/deadline.h>

namespace ziggurat::watch {
namespace {

TEST(Deadline, IsTheEarlierOfLimitAndEndOfJob) {
  EXPECT_FALSE(Deadline(1000, 0, nullptr).exists());
  EXPECT_FALSE(Deadline(1000, 0, "soon").exists());
  EXPECT_FALSE(Deadline(1000, 0, nullptr).reached(1e12, true, true));
  EXPECT_EQ(Deadline(1000, 50, nullptr).at(), 1050);
  EXPECT_EQ(Deadline(1000, 50, "1040").at(), 1040);
  EXPECT_EQ(Deadline(1000, 50, "2000").at(), 1050);
  EXPECT_EQ(Deadline(1000, 0, "2000").at(), 2000);
}

// Whatever is asked when: what follows an answer of no ends before the limit, if it takes as long as before.
TEST(Deadline, LeavesTimeForAStepAndASave) {
  Deadline deadline(0, 1000, nullptr);
  deadline.took_step(10), deadline.took_save(20), deadline.took_evaluation(40);
  double now = 0;
  int steps = 0;
  while (true) {
    now += 10, ++steps;  // a step
    const bool evaluates = steps % 5 == 0, saves = steps % 7 == 0;
    if (deadline.reached(now, evaluates, saves)) break;
    now += (evaluates ? 40 : 0) + (saves ? 20 : 0);
  }
  now += 20;
  EXPECT_LT(now, 1000);
  EXPECT_GT(now, 850);
}

TEST(Deadline, GuessesTheFirstSave) {
  Deadline deadline(0, 1000, nullptr);
  deadline.took_step(1);
  EXPECT_FALSE(deadline.reached(900, false, false));
  deadline.guess_save(100'000'000'000);
  EXPECT_TRUE(deadline.reached(900, false, false));
  deadline.took_save(1);
  EXPECT_FALSE(deadline.reached(900, false, false));
}

TEST(Deadline, ForgetsTheSlowStepsOfTheStart) {
  Deadline deadline(0, 1000, nullptr);
  deadline.took_step(900);
  EXPECT_TRUE(deadline.reached(100, false, false));
  for (int i = 0; i < 100; ++i) deadline.took_step(1);
  EXPECT_FALSE(deadline.reached(100, false, false));
}

TEST(Deadline, KnowsWhenThisProcessStarted) {
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  EXPECT_LE(process_started(), now);
  EXPECT_GT(process_started(), now - 3600);
}

}  // namespace
}  // namespace ziggurat::watch
