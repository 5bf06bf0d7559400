// The published models of DeepSpeed-MoE: their sizes from the configs, from the model as it is built, and
// from the formula that reproduces every size of the paper.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "tests/support/source_dir.h"
#include <ziggurat/config/config.h>
#include <ziggurat/plan/parallel_plan.h>
#include <ziggurat/train/memory_plan.h>

namespace ziggurat {
namespace {

struct Published {
  const char* name;
  int64_t layers, hidden;
  std::vector<std::pair<int64_t, int64_t>> moe_layers;  // how many, with how many experts each
  bool residual;
  double parameters, unit;  // as published, to so many digits
};
void PrintTo(const Published& p, std::ostream* os) { *os << p.name; }

// dense = L (12 h^2 + 13 h) + (50304 + 2048 + 2) h; an expert is an MLP of 8 h^2 + 5 h. A MoE layer has E
// experts and a gate E h instead of its MLP; a residual one has them besides, and a mix of 2 h + 2.
int64_t by_formula(const Published& p) {
  const int64_t h = p.hidden, mlp = 8 * h * h + 5 * h;
  int64_t n = p.layers * (12 * h * h + 13 * h) + (50304 + 2048 + 2) * h;
  for (const auto& [layers, experts] : p.moe_layers) {
    n += layers * (experts * (mlp + h) + (p.residual ? 2 * h + 2 : -mlp));
  }
  return n;
}

class PublishedModel : public ::testing::TestWithParam<Published> {};

TEST_P(PublishedModel, HasThePublishedSize) {
  const Published& p = GetParam();
  train::RunConfig config;
  load_config(config, test::source_dir() + "/configs/published/" + p.name + ".yaml");
  EXPECT_NEAR(static_cast<double>(by_formula(p)), p.parameters, p.unit / 2);
  EXPECT_EQ(model::count(config.model, 2048).parameters, by_formula(p));

  const std::vector<int> sizes = config.model.expert_parallel_sizes();
  const int ranks = sizes.empty() ? 1 : *std::max_element(sizes.begin(), sizes.end());
  const train::MemoryPlan plan = train::plan_memory(config, ranks, ranks - 1);
  EXPECT_EQ(plan.global_parameters, by_formula(p));

  // One expert of every MoE layer on each rank: the system design of the paper.
  int64_t local = by_formula(p);
  const int64_t expert = 8 * p.hidden * p.hidden + 5 * p.hidden;
  for (const auto& [layers, experts] : p.moe_layers) local -= layers * (experts - 1) * expert;
  EXPECT_EQ(plan.local_parameters, local);
  EXPECT_EQ(config.train.tokens, 300'000'000'000);
}

INSTANTIATE_TEST_SUITE_P(
    Models, PublishedModel,
    ::testing::Values(Published{"350m_dense", 24, 1024, {}, false, 355.9e6, 1e5},
                      Published{"1.3b_dense", 24, 2048, {}, false, 1315.8e6, 1e5},
                      Published{"6.7b_dense", 32, 4096, {}, false, 6658.6e6, 1e5},
                      Published{"350m_moe128", 24, 1024, {{12, 128}}, false, 13.150e9, 1e6},
                      Published{"1.3b_moe128", 24, 2048, {{12, 128}}, false, 52.472e9, 1e6},
                      Published{"350m_pr_moe", 24, 1024, {{10, 32}, {2, 64}}, true, 4.117e9, 1e6},
                      Published{"1.3b_pr_moe", 24, 2048, {{10, 64}, {2, 128}}, true, 31.392e9, 1e6},
                      Published{"350m_mos", 21, 1024, {{8, 32}, {2, 64}}, true, 3.542e9, 1e6},
                      Published{"1.3b_mos", 21, 2048, {{8, 64}, {2, 128}}, true, 26.944e9, 1e6},
                      Published{"125m_moe64", 12, 768, {{6, 64}}, false, 1.911e9, 1e6}));

TEST(PublishedModels, PyramidsArePlannableOnTheirRanks) {
  train::RunConfig config;
  load_config(config, test::source_dir() + "/configs/published/1.3b_pr_moe.yaml");
  config.model.blocks[0].pattern[1].experts = 32;
  config.model.blocks[0].pattern[1].expert_parallel = 32;
  config.model.blocks.insert(
      config.model.blocks.begin() + 1,
      {.repeat = 1,
       .pattern = {{.ffn = model::FfnKind::residual_moe, .experts = 64, .expert_parallel = 64}}});
  const ParallelPlan plan(128, config.model.expert_parallel_sizes());
  EXPECT_EQ(plan.ep_sizes(), (std::vector<int>{32, 64, 128}));
  EXPECT_EQ(plan.expert_dp(32).size, 4);
  EXPECT_EQ(plan.expert_dp(64).size, 2);
  EXPECT_EQ(plan.expert_dp(128).size, 1);
  EXPECT_GT(train::plan_memory(config, 128, 5).local_parameters, 0);

  config.batch.global_batch = 2048;
  // 512 ranks, each looked at: all alike, as one expert of each layer's is on each.
  const std::vector<train::RankClass> classes = train::plan_every_rank(config, 512);
  ASSERT_EQ(classes.size(), 1U);
  EXPECT_EQ(classes[0].ranks.size(), 512U);
  EXPECT_EQ(classes[0].memory.local_parameters, train::plan_memory(config, 512, 511).local_parameters);
}

}  // namespace
}  // namespace ziggurat
