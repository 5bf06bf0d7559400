// Faults on purpose in whole steps.
#include <gmock/gmock.h>

#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/core/injection.h>

namespace ziggurat::test {
namespace {

class Spoil : public ::testing::Test {
 protected:
  void TearDown() override { inject(""); }
  static TrainingRun run(const std::string& faults, int ranks = 2, int64_t steps = 2) {
    inject(faults);
    const ::ziggurat::testing::TempDir folder;
    return train_on_threads(small_pr_moe(folder.path()), ranks, steps);
  }
};

TEST_F(Spoil, GradientsAreScaledOnEveryRankOnce) {
  const TrainingRun clean = run(""), scaled = run("gradient:scale:by=64:step=2");
  EXPECT_EQ(scaled.losses(), clean.losses());
  EXPECT_EQ(scaled.grad_norms()[0], clean.grad_norms()[0]);
  EXPECT_EQ(scaled.grad_norms()[1], 64 * clean.grad_norms()[1]);
}

TEST_F(Spoil, OneBitOfOneRankReachesTheSumOfAll) {
  const TrainingRun clean = run("", 2, 1), flipped = run("gradient:flip:rank=1:bit=20:element=40", 2, 1);
  EXPECT_EQ(flipped.losses(), clean.losses());
  const std::string name = "embed.token.weight[1]";
  EXPECT_NE(flipped.gradients.at(name)[8], clean.gradients.at(name)[8]);
  for (const auto& [key, values] : clean.gradients) {
    EXPECT_TRUE(key == name || flipped.gradients.at(key) == values) << key;
  }
}

TEST_F(Spoil, ElementsOfExpertsAreThoseOfTheRankThatHoldsThem) {
  const std::string name = "blocks.1.moe.experts.up.weight";
  const TrainingRun clean = run("", 2, 1);
  const auto width = static_cast<int64_t>(clean.gradients.at(name + "[1]").size());
  const TrainingRun spoiled =
      run(fmt::format("gradient:scale:by=3:tensor={}:element={}", name, width + 5), 2, 1);
  EXPECT_EQ(spoiled.gradients.at(name + "[0]"), clean.gradients.at(name + "[0]"));
  EXPECT_EQ(static_cast<float>(spoiled.gradients.at(name + "[1]")[5]),
            3 * static_cast<float>(clean.gradients.at(name + "[1]")[5]));
}

TEST_F(Spoil, ALossThatIsNoNumberStopsEveryRank) {
  EXPECT_THROW(run("loss:nan:rank=1:step=2"), Error);
  EXPECT_THROW(run("gradient:inf:rank=1:step=2"), Error);
  EXPECT_THROW(run("weight:nan:rank=0:step=2"), Error);
  EXPECT_THROW(run("gradient:nan:tensor=blocks.7.typo"), Error);
}

}  // namespace
}  // namespace ziggurat::test
