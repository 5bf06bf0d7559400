#include "watch/rank_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ziggurat::watch {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

RankView in_collective(int rank, const char* name, int64_t sequence) {
  RankView view{.rank = rank, .place = "pid 17 on node3"};
  view.readable = view.waits = true;
  view.phase = Phase::step, view.step = 12;
  view.collective = {.name = name, .group = "world", .sequence = sequence, .bytes = 16};
  view.unmoved = kLooks;
  return view;
}

TEST(MissingRanks, TheStoppedAreNamed) {
  const RankView self = in_collective(0, "all_reduce", 7);
  std::vector<RankView> others = {in_collective(1, "all_reduce", 7), in_collective(2, "all_reduce", 6)};
  others[1].stopped = true;
  EXPECT_THAT(missing_ranks(self, others),
              ElementsAre(AllOf(HasSubstr("rank 2 (pid 17 on node3) is stopped"),
                                HasSubstr("step 12, in all_reduce #6 of 16 bytes on 'world'"))));
}

TEST(MissingRanks, OfAnotherMachineTheSilentOnes) {
  const RankView self = in_collective(0, "all_reduce", 7);
  std::vector<RankView> others = {in_collective(1, "all_reduce", 7), RankView{.rank = 2, .place = "there"}};
  others[1].silent = kLooks - 1;
  EXPECT_THAT(missing_ranks(self, others), IsEmpty());
  others[1].silent = kLooks;
  EXPECT_THAT(missing_ranks(self, others), ElementsAre("rank 2 (there) gives no sign of life"));
}

TEST(MissingRanks, WhoComputesWhileAllOthersWait) {
  RankView self = in_collective(0, "all_reduce", 7);
  std::vector<RankView> others = {in_collective(1, "all_reduce", 7), in_collective(2, "all_reduce", 6)};
  others[1].waits = false;
  EXPECT_THAT(missing_ranks(self, others),
              ElementsAre(HasSubstr("rank 2 (pid 17 on node3) does not get on")));
  others[1].unmoved = 0;  // it is on its way
  EXPECT_THAT(missing_ranks(self, others),
              ElementsAre(HasSubstr("rank 2 (pid 17 on node3) waits elsewhere")));
  self.waits = false;
  EXPECT_THAT(missing_ranks(self, others), ElementsAre(HasSubstr("this one, does not get on: step 12")));
}

TEST(MissingRanks, WhoWaitsInAnotherCollective) {
  const RankView self = in_collective(0, "all_reduce", 7);
  const std::vector<RankView> others = {in_collective(1, "barrier", 7), in_collective(2, "all_reduce", 7)};
  EXPECT_THAT(missing_ranks(self, others),
              ElementsAre(HasSubstr("rank 1 (pid 17 on node3) waits elsewhere")));
}

TEST(MissingRanks, TheDeadBeforeAllOthersAndWhoEndedAsItShouldNever) {
  const RankView self = in_collective(0, "all_reduce", 7);
  std::vector<RankView> others = {in_collective(1, "all_reduce", 7), in_collective(2, "all_reduce", 6)};
  others[0].stopped = true, others[1].dead = true;
  EXPECT_THAT(missing_ranks(self, others), ElementsAre(HasSubstr("rank 2 (pid 17 on node3) is dead")));
  others[1].said_goodbye = true;
  EXPECT_THAT(missing_ranks(self, others), ElementsAre(HasSubstr("rank 1 (pid 17 on node3) is stopped")));
}

TEST(MissingRanks, AreToldInOneLine) {
  const RankView self = in_collective(0, "all_reduce", 7);
  std::vector<RankView> others;
  for (int rank = 1; rank <= 100; ++rank)
    others.push_back(RankView{.rank = rank, .place = "there"}), others.back().silent = kLooks;
  const std::vector<std::string> missing = missing_ranks(self, others);
  ASSERT_EQ(missing.size(), 9u);
  EXPECT_EQ(missing[7], "rank 8 (there) gives no sign of life");
  EXPECT_EQ(missing[8], "and 92 more");
}

TEST(RankView, GoesThroughAFileAndBack) {
  RankView view = in_collective(1, "all_reduce", 7), read;
  view.words = {"was ended", 139, true};
  int64_t beats = 0, progress = 0;
  ASSERT_TRUE(from_json(to_json(view, 5, 6), read, beats, progress));
  EXPECT_EQ(doing(read), doing(view));
  EXPECT_EQ(read.words.text, "was ended");
  EXPECT_EQ(read.words.exit_code, 139);
  EXPECT_EQ(beats, 5);
  EXPECT_EQ(progress, 6);
  for (const char* text : {"", "{", "{\"beats\":5}", "[]", "{\"beats\":\"x\"}"}) {
    EXPECT_FALSE(from_json(text, read, beats, progress)) << text;
  }
}

}  // namespace
}  // namespace ziggurat::watch
