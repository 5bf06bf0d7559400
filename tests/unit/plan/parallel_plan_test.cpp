#include <algorithm>

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

using Groups = std::vector<std::vector<int>>;

TEST(ParallelPlan, GroupsOfTheManual) {  // DeepSpeed's example, deepspeed/utils/groups.py: world 16, ep 2
  const ParallelPlan plan(16, {2});
  EXPECT_THAT(plan.ep(2).members(5), ElementsAre(4, 5));
  EXPECT_THAT(plan.expert_dp(2).members(5), ElementsAre(1, 3, 5, 7, 9, 11, 13, 15));
  EXPECT_EQ(plan.ep(2).place(5), 1);
  EXPECT_EQ(plan.ep(2).first(5), 4);
  EXPECT_EQ(plan.expert_dp(2).place(5), 2);
  EXPECT_EQ(plan.expert_dp(2).size, 8);
}

TEST(ParallelPlan, GroupsOfTheManualWithTensorParallelism) {  // the same file: world 16, tp 2, ep 4
  const ParallelPlan plan(16, {4}, {.tp = 2, .expert_tp = 2});
  EXPECT_EQ(plan.tp().groups(16),
            (Groups{{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}, {10, 11}, {12, 13}, {14, 15}}));
  EXPECT_EQ(plan.dp().groups(16), (Groups{{0, 2, 4, 6, 8, 10, 12, 14}, {1, 3, 5, 7, 9, 11, 13, 15}}));
  EXPECT_EQ(plan.ep(4).groups(16), (Groups{{0, 2, 4, 6}, {1, 3, 5, 7}, {8, 10, 12, 14}, {9, 11, 13, 15}}));
  EXPECT_EQ(plan.expert_dp(4).groups(16),
            (Groups{{0, 8}, {1, 9}, {2, 10}, {3, 11}, {4, 12}, {5, 13}, {6, 14}, {7, 15}}));
  EXPECT_EQ(plan.str(), "16 ranks; dp 8 x tp 2; ep 4 x expert-dp 2 x expert-tp 2");
}

// Megatron's folding: the experts' layout takes the ranks anew, so a group of 8 spans dp 4 and tp 2.
TEST(ParallelPlan, ExpertGroupsSpanDataAndTensorParallelRanks) {
  const ParallelPlan plan(16, {8}, {.tp = 2});
  EXPECT_EQ(plan.dp().size, 8);
  EXPECT_EQ(plan.ep(8).groups(16), (Groups{{0, 1, 2, 3, 4, 5, 6, 7}, {8, 9, 10, 11, 12, 13, 14, 15}}));
  EXPECT_THAT(plan.expert_dp(8).members(9), ElementsAre(1, 9));
  EXPECT_EQ(plan.str(), "16 ranks; dp 8 x tp 2; ep 8 x expert-dp 2");
  EXPECT_THAT(plan.experts_of(11, 8, 8), (IndexRange{3, 4}));
}

TEST(ParallelPlan, PipelineStagesHaveGroupsOfTheirOwn) {
  const ParallelPlan plan(16, {4}, {.tp = 2, .cp = 2, .pp = 2});
  EXPECT_EQ(plan.pp().groups(16)[3], (std::vector<int>{3, 11}));
  EXPECT_EQ(plan.cp().groups(16)[1], (std::vector<int>{1, 3}));
  EXPECT_EQ(plan.dp().groups(16),
            (Groups{{0, 4}, {1, 5}, {2, 6}, {3, 7}, {8, 12}, {9, 13}, {10, 14}, {11, 15}}));
  EXPECT_THAT(plan.ep(4).members(14), ElementsAre(12, 13, 14, 15));
  EXPECT_THAT(plan.expert_dp(4).members(14), ElementsAre(10, 14));
}

TEST(ParallelPlan, PublishedPrMoeOn128Ranks) {
  const ParallelPlan plan(128, {64, 32, 128, 32});
  EXPECT_THAT(plan.ep_sizes(), ElementsAre(32, 64, 128));
  EXPECT_EQ(plan.expert_dp(32).size, 4);
  EXPECT_EQ(plan.expert_dp(64).size, 2);
  EXPECT_EQ(plan.expert_dp(128).size, 1);
  EXPECT_EQ(plan.str(), "128 ranks; ep 32 x expert-dp 4; ep 64 x expert-dp 2; ep 128 x expert-dp 1");
}

TEST(ParallelPlan, GroupsAsText) {
  EXPECT_EQ(groups_text({"ep4", 4, 1}, 8, 4), "[0..3] [4..7]");
  EXPECT_EQ(groups_text({"expert_dp4", 2, 4}, 8, 2), "[0,4] [1,5] ... [3,7]");
  EXPECT_EQ(groups_text({"expert_dp2", 8, 2}, 16, 2), "[0,2,..,14] [1,3,..,15]");
  EXPECT_EQ(groups_text({"tp", 1, 1}, 3, 2), "[0] [1] [2]");
  EXPECT_EQ(groups_text({"dp", 2, 1}, 512, 2), "[0..1] [2..3] ... [510..511]");
}

// Along each axis every rank has one place in one group; an EP group owns each expert once, and the members
// of an expert-dp group own the same.
TEST(ParallelPlan, GroupsPartitionTheRanksAndTheExperts) {
  struct Layout {
    int world;
    AxisSizes sizes;
  };
  for (const auto& [world, sizes] : {Layout{1, {}},
                                     {2, {}},
                                     {6, {}},
                                     {12, {}},
                                     {128, {}},
                                     {12, {.tp = 2}},
                                     {16, {.tp = 4, .expert_tp = 2}},
                                     {24, {.tp = 2, .cp = 3, .expert_tp = 4}},
                                     {32, {.tp = 2, .cp = 2, .pp = 4, .expert_tp = 2}}}) {
    const int sharing = world / sizes.pp / sizes.expert_tp;
    for (int ep = 1; ep <= sharing; ++ep) {
      if (sharing % ep != 0) continue;
      const ParallelPlan plan(world, {ep}, sizes);
      EXPECT_EQ(plan.tp().size * plan.cp().size * plan.dp().size * plan.pp().size, world);
      EXPECT_EQ(plan.expert_tp().size * ep * plan.expert_dp(ep).size * plan.pp().size, world);
      for (const RankAxis& axis : plan.axes()) {
        std::vector<int> seen;
        for (const std::vector<int>& group : axis.groups(world)) {
          for (size_t i = 0; i < group.size(); ++i) {
            EXPECT_EQ(axis.place(group[i]), static_cast<int>(i));
            EXPECT_EQ(axis.members(group[i]), group);
            seen.push_back(group[i]);
          }
        }
        std::sort(seen.begin(), seen.end());
        for (int rank = 0; rank < world; ++rank) ASSERT_EQ(seen.at(static_cast<size_t>(rank)), rank);
        ASSERT_EQ(seen.size(), static_cast<size_t>(world));
      }
      const int64_t num_experts = 3 * ep;
      for (int rank = 0; rank < world; ++rank) {
        int64_t next = 0;
        for (const int member : plan.ep(ep).members(rank)) {
          const IndexRange experts = plan.experts_of(member, num_experts, ep);
          EXPECT_EQ(experts.begin, next);
          next = experts.end;
        }
        EXPECT_EQ(next, num_experts);
        for (const int member : plan.expert_dp(ep).members(rank)) {
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
  EXPECT_THAT(message_of(ErrorKind::internal, [&] { plan.ep(8); }), HasSubstr("8 was not planned"));
  EXPECT_THAT(message_of(ErrorKind::internal, [&] { plan.expert_dp(8); }), HasSubstr("8 was not planned"));
  EXPECT_THAT(message_of(ErrorKind::internal, [&] { plan.experts_of(8, 2, 2); }), HasSubstr("rank 8 of 8"));
  EXPECT_THAT(message_of(ErrorKind::config, [] { ParallelPlan(12, {}, {.tp = 8}); }),
              AllOf(HasSubstr("(8 x 1 x 1) do not divide the 12 ranks"), HasSubstr("start 8 or 16 ranks")));
  EXPECT_THAT(message_of(ErrorKind::config, [] { ParallelPlan(12, {}, {.expert_tp = 5}); }),
              HasSubstr("set it to 4 or 6"));
  EXPECT_THAT(message_of(ErrorKind::config, [] { ParallelPlan(4, {}, {.cp = 0}); }),
              HasSubstr("context-parallel size is at least 1, got 0"));
  EXPECT_THAT(message_of(ErrorKind::config, [] { ParallelPlan(16, {6}, {.tp = 2, .expert_tp = 2}); }),
              AllOf(HasSubstr("size 6 does not divide the 8 ranks of a pipeline stage"),
                    HasSubstr("set it to 4 or 8, or start 12 or 24 ranks")));
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
