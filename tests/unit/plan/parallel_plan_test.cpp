#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ziggurat/core/error.h>
#include <ziggurat/plan/parallel_plan.h>

namespace ziggurat {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

template <class F>
std::string message_of(ErrorKind kind, const F& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    return error.what();
  }
  ADD_FAILURE() << "expected an Error";
  return "";
}

TEST(ParallelPlan, GroupsOfTheManual) {  // DeepSpeed's example, deepspeed/utils/groups.py: world 16, ep 2
  const ParallelPlan plan(16, {2});
  EXPECT_THAT(plan.ep_members(5, 2), ElementsAre(4, 5));
  EXPECT_THAT(plan.expert_dp_members(5, 2), ElementsAre(1, 3, 5, 7, 9, 11, 13, 15));
  EXPECT_EQ(plan.ep_rank(5, 2), 1);
  EXPECT_EQ(plan.ep_group(5, 2), 2);
  EXPECT_EQ(plan.expert_dp_rank(5, 2), 2);
  EXPECT_EQ(plan.expert_dp_size(2), 8);
}

TEST(ParallelPlan, PublishedPrMoeOn128Ranks) {
  const ParallelPlan plan(128, {64, 32, 128, 32});
  EXPECT_THAT(plan.ep_sizes(), ElementsAre(32, 64, 128));
  EXPECT_EQ(plan.expert_dp_size(32), 4);
  EXPECT_EQ(plan.expert_dp_size(64), 2);
  EXPECT_EQ(plan.expert_dp_size(128), 1);
  EXPECT_EQ(plan.str(), "128 ranks; ep 32 x expert-dp 4; ep 64 x expert-dp 2; ep 128 x expert-dp 1");
}

// Every rank is in one place of one EP group and of one expert-dp group; an EP group owns each expert once,
// and the members of an expert-dp group own the same.
TEST(ParallelPlan, GroupsPartitionTheRanksAndTheExperts) {
  for (const int world : {1, 2, 4, 6, 12, 128}) {
    for (int ep = 1; ep <= world; ++ep) {
      if (world % ep != 0) continue;
      const ParallelPlan plan(world, {ep});
      const int64_t num_experts = 3 * ep;
      for (int rank = 0; rank < world; ++rank) {
        const std::vector<int> ep_members = plan.ep_members(rank, ep),
                               dp_members = plan.expert_dp_members(rank, ep);
        ASSERT_EQ(ep_members.size() * dp_members.size(), static_cast<size_t>(world));
        EXPECT_EQ(ep_members[static_cast<size_t>(plan.ep_rank(rank, ep))], rank);
        EXPECT_EQ(dp_members[static_cast<size_t>(plan.expert_dp_rank(rank, ep))], rank);
        int64_t next = 0;
        for (const int member : ep_members) {
          EXPECT_EQ(plan.ep_group(member, ep), plan.ep_group(rank, ep));
          const IndexRange experts = plan.experts_of(member, num_experts, ep);
          EXPECT_EQ(experts.begin, next);
          next = experts.end;
        }
        EXPECT_EQ(next, num_experts);
        for (const int member : dp_members) {
          EXPECT_EQ(plan.expert_dp_group(member, ep), plan.expert_dp_group(rank, ep));
          EXPECT_EQ(plan.experts_of(member, num_experts, ep), plan.experts_of(rank, num_experts, ep));
        }
      }
    }
  }
}

TEST(ParallelPlan, ErrorsNameTheCure) {
  EXPECT_THAT(message_of(ErrorKind::config, [] { ParallelPlan(8, {3}); }),
              AllOf(HasSubstr("size 3 does not divide the 8 ranks"), HasSubstr("set it to 2 or 4"),
                    HasSubstr("start 6 or 9 ranks")));
  EXPECT_THAT(message_of(ErrorKind::config,
                         [] {
                           ParallelPlan(4, {1, 8});
                         }),
              AllOf(HasSubstr("set it to 4, or"), HasSubstr("start 8 ranks")));
  EXPECT_THAT(message_of(ErrorKind::config, [] { ParallelPlan(4, {0}); }), HasSubstr("at least 1, got 0"));
  EXPECT_THAT(message_of(ErrorKind::config, [] { ParallelPlan(0, {}); }),
              HasSubstr("at least 1 rank, got 0"));
  const ParallelPlan plan(8, {2, 4});
  EXPECT_THAT(message_of(ErrorKind::config, [&] { plan.experts_of(0, 10, 4); }),
              AllOf(HasSubstr("10 experts"), HasSubstr("size to 2, or"), HasSubstr("experts to 8 or 12")));
  EXPECT_THAT(message_of(ErrorKind::config, [&] { plan.experts_of(0, 0, 4); }), HasSubstr("got 0"));
  EXPECT_THAT(message_of(ErrorKind::internal, [&] { plan.ep_rank(0, 8); }), HasSubstr("8 was not planned"));
  EXPECT_THAT(message_of(ErrorKind::internal, [&] { plan.expert_dp_size(8); }),
              HasSubstr("8 was not planned"));
  EXPECT_THAT(message_of(ErrorKind::internal, [&] { plan.ep_rank(8, 2); }), HasSubstr("rank 8 of 8"));
}

TEST(Lanes, ConsecutiveAndCompleteOnAnyNumberOfRanks) {
  for (const int world : {1, 2, 4, 8}) {
    int64_t next = 0;
    for (int rank = 0; rank < world; ++rank) {
      const IndexRange lanes = lanes_of(rank, world, 8);
      EXPECT_EQ(lanes.begin, next);
      EXPECT_EQ(lanes.size(), 8 / world);
      next = lanes.end;
    }
    EXPECT_EQ(next, 8);
  }
}

TEST(Lanes, ErrorsNameTheCure) {
  EXPECT_THAT(message_of(ErrorKind::config, [] { lanes_of(0, 3, 8); }), HasSubstr("start 2 or 4"));
  EXPECT_THAT(message_of(ErrorKind::config, [] { lanes_of(0, 2, 6); }), HasSubstr("set it to 8"));
  EXPECT_THAT(message_of(ErrorKind::config, [] { lanes_of(0, 2, 0); }), HasSubstr("power of two, got 0"));
  EXPECT_THAT(message_of(ErrorKind::config, [] { lanes_of(0, 8, 4); }), HasSubstr("set at least 8 lanes"));
  EXPECT_THAT(message_of(ErrorKind::internal, [] { lanes_of(2, 2, 4); }), HasSubstr("rank 2 of 2"));
}

}  // namespace
}  // namespace ziggurat
