// One run, however its ranks are laid out: tensor, expert and data parallelism, ZeRO, nodes. Losses,
// gradients and the clip norm are those of one rank, to rounding.
#include <cmath>

#include <gtest/gtest.h>

#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/thread.h>

namespace ziggurat {
namespace {

using test::train_on_threads;
using test::TrainingRun;
using ziggurat::testing::TempDir;

struct Layout {
  int ranks = 1, tp = 1, ep = 1, expert_tp = 1, zero = 0, nodes = 1;
  bool recompute = false, small_buckets = false;

  std::string str() const {
    return fmt::format("{} ranks, tp {}, ep {}, expert-tp {}, ZeRO {}, {} nodes{}{}", ranks, tp, ep,
                       expert_tp, zero, nodes, recompute ? ", recomputing" : "",
                       small_buckets ? ", small buckets" : "");
  }
};

// Every pair of tp and ep on every number of ranks; the other choices go around, so that each meets each. Of
// experts that are cut too, as many layouts as there are without.
std::vector<Layout> layouts(bool experts) {
  std::vector<Layout> all;
  int turn = 0;
  for (const int ranks : {2, 4, 8}) {
    for (int tp = 1; tp <= std::min(ranks, 4); tp *= 2) {
      for (int ep = 1; ep <= (experts ? ranks : 1); ep *= 2) {
        for (const int expert_tp : {1, turn % 4 < 3 ? 2 : 4}) {
          if (expert_tp > 1 && (!experts || ep * expert_tp > ranks)) continue;
          Layout layout{.ranks = ranks, .tp = tp, .ep = ep, .expert_tp = expert_tp, .zero = turn % 3};
          layout.nodes = ranks > 2 && turn % 2 == 1 ? 2 : 1;
          layout.recompute = turn % 5 == 4;
          layout.small_buckets = turn % 4 != 3;
          all.push_back(layout);
          ++turn;
        }
      }
    }
  }
  return all;
}

struct Case {
  const char* name;
  bool experts;
  train::Precision precision;
  void (*change)(model::ModelConfig&);
  bool drops = true;
  bool clips_groups = false;
  void (*change_run)(train::RunConfig&) = nullptr;
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

void gated(model::ModelConfig& m) {  // what newer models have
  m.activation = nn::MlpKind::swiglu;
  m.norm = nn::NormKind::rms_norm;
  m.positions = model::Positions::rope;
  m.qk_norm = nn::QkNorm::head;
  m.heads = 8, m.kv_heads = 4;
  m.bias = m.tied_embeddings = false;
}
void top_2(model::ModelConfig& m) {
  m.moe.top_k = 2;
  m.moe.jitter = 0.01;
  m.moe.z_coefficient = 0.01;
  m.moe.balance_scope = moe::BalanceScope::sequence;
  for (model::BlockRun& run : m.blocks) {
    for (model::BlockSpec& layer : run.pattern) {
      if (layer.ffn == model::FfnKind::residual_moe) layer.ffn = model::FfnKind::moe;
    }
  }
}

// OLMoE's attention, a window, and all parts of the loss.
void whole_width(model::ModelConfig& m) {
  gated(m);
  m.qk_norm = nn::QkNorm::width;
  m.window = 5;
}
void all_parts(train::RunConfig& c) { c.objective = {.z_loss = 0.01, .label_smoothing = 0.1}; }

// DeepSeek's routing with a shared expert, and UL2 with whole prefixes, which a window cuts.
void sigmoid_groups(model::ModelConfig& m) {
  whole_width(m);
  m.moe.drop = moe::DropPolicy::none;
  m.moe.score = moe::RouterScore::sigmoid;
  m.moe.top_k = 2, m.moe.expert_groups = 2, m.moe.chosen_groups = 1, m.moe.weight_scale = 2.5;
  m.moe.balance_bias = true;
  m.moe.renormalise = moe::Renormalise::chosen;
  m.moe.residual_mix = moe::ResidualMix::sum;
  for (model::BlockRun& run : m.blocks) {
    for (model::BlockSpec& layer : run.pattern) {
      if (layer.experts == 2) layer.experts = 4;
    }
  }
}
void whole_prefixes(train::RunConfig& c) {
  all_parts(c);
  c.data.ul2.until = 1 << 20, c.data.ul2.sentinels = 8, c.data.ul2.bidirectional = true;
}

void dropless(model::ModelConfig& m) {
  gated(m);
  m.moe.drop = moe::DropPolicy::none;
  m.moe.top_k = 2;
  m.moe.identical_experts = true;
}

class AnyLayout : public ::testing::TestWithParam<Case> {
 protected:
  train::RunConfig config(const Layout& layout) const {
    const Case& c = GetParam();
    train::RunConfig config =
        c.experts ? test::small_pr_moe(folder_.path(), layout.ep) : test::small_dense(folder_.path());
    if (c.change != nullptr) c.change(config.model);
    if (c.clips_groups) {
      config.optimizer.clip_grad = 0.05;
      config.optimizer.clip_groups = {{"experts", "*.experts.*", 0.02}, {"norms", "*norm*", 0.01}};
    }
    if (c.change_run != nullptr) c.change_run(config);
    config.precision = c.precision;
    config.parallel.tensor = layout.tp;
    config.parallel.expert_tensor = layout.expert_tp;
    config.parallel.zero = layout.zero;
    config.train.recompute = layout.recompute;
    if (layout.small_buckets) config.parallel.bucket = 20'000;  // a parameter or a few
    return config;
  }
  TempDir folder_;
};

TEST_P(AnyLayout, IsTheRunOfOneRank) {
  constexpr int64_t kSteps = 2;
  const TrainingRun alone = train_on_threads(config({}), 1, kSteps);
  if (GetParam().experts && GetParam().drops) {
    EXPECT_GT(alone.steps[0].drop_rate(), 0);  // else random selection would not be seen
  }
  // Sums of a step's tokens in other orders; of bf16 also roundings of what ranks sum.
  constexpr double kTerms = 256, kSlack = 8;
  const double eps = GetParam().precision == train::Precision::fp64   ? 0x1p-53
                     : GetParam().precision == train::Precision::fp32 ? 0x1p-24
                                                                      : 0x1p-8 / 32;
  const double tolerance = kTerms * kSlack * eps;
  for (const Layout& layout : layouts(GetParam().experts)) {
    SCOPED_TRACE(layout.str());
    const auto on_nodes = [&](Communicator& world) {
      if (layout.nodes == 1) return;
      world.use_nodes({.node = world.rank() / (world.size() / layout.nodes),
                       .all_to_all = AllToAll::hierarchical,
                       .sums_from = 1});
    };
    const TrainingRun spread = train_on_threads(config(layout), layout.ranks, kSteps, {}, on_nodes);
    for (size_t i = 0; i < static_cast<size_t>(kSteps); ++i) {
      const train::StepRecord &got = spread.steps[i], &want = alone.steps[i];
      EXPECT_NEAR(got.loss, want.loss, tolerance) << "step " << i;
      EXPECT_NEAR(got.auxiliary_loss, want.auxiliary_loss, tolerance) << "step " << i;
      EXPECT_NEAR(got.grad_norm, want.grad_norm, tolerance * want.grad_norm) << "step " << i;
      ASSERT_EQ(got.grad_norms.size(), GetParam().clips_groups ? 3U : 0U);
      for (size_t g = 0; g < got.grad_norms.size(); ++g) {
        EXPECT_EQ(got.grad_norms[g].first, want.grad_norms[g].first);
        EXPECT_NEAR(got.grad_norms[g].second, want.grad_norms[g].second, tolerance * want.grad_norm)
            << got.grad_norms[g].first << ", step " << i;
      }
      if (GetParam().precision == train::Precision::bf16) continue;  // a choice may fall the other way
      EXPECT_EQ(got.drop_rate(), want.drop_rate()) << "step " << i;
    }
    EXPECT_NEAR(spread.validation.loss, alone.validation.loss, tolerance);
    if (GetParam().precision == train::Precision::bf16) continue;
    // Of weights that Adam has moved by lr g / |g|, which makes much of what rounding left of small ones.
    constexpr double kOfAdam = 8;
    const double typical = alone.steps.back().grad_norm / 100;
    test::expect_close(spread.gradients, alone.gradients, kOfAdam * tolerance, typical, "gradients");
    ASSERT_EQ(spread.weights.size(), alone.weights.size());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, AnyLayout,
    ::testing::Values(
        Case{"dense_fp64", false, train::Precision::fp64, nullptr},
        Case{"gated_dense_fp64", false, train::Precision::fp64, gated},
        Case{"dense_fp32", false, train::Precision::fp32, nullptr},
        Case{"dense_bf16", false, train::Precision::bf16, nullptr},
        Case{"pr_moe_fp64", true, train::Precision::fp64, nullptr},
        Case{"pr_moe_fp32", true, train::Precision::fp32, nullptr},
        Case{"pr_moe_bf16", true, train::Precision::bf16, nullptr},
        Case{"top_2_moe_fp64", true, train::Precision::fp64, top_2},
        Case{"gated_dropless_fp64", true, train::Precision::fp64, dropless, false},
        Case{"whole_width_fp64", false, train::Precision::fp64, whole_width, false, false, all_parts},
        Case{"whole_width_bf16", false, train::Precision::bf16, whole_width, false, false, all_parts},
        Case{"sigmoid_groups_fp64", true, train::Precision::fp64, sigmoid_groups, false, false,
             whole_prefixes},
        Case{"clip_groups_fp64", true, train::Precision::fp64, nullptr, true, true}),
    [](const ::testing::TestParamInfo<Case>& c) { return c.param.name; });

// What one layout saves any other reads: weights and moments are those of the global tensors.
TEST(LayoutCheckpoints, GoOnUnderAnyOther) {
  const TempDir folder;
  const auto config = [&](const Layout& layout, const std::string& output) {
    train::RunConfig c = test::small_pr_moe(folder / output, layout.ep);
    c.precision = train::Precision::fp64;
    c.checkpoint.resume = train::Resume::automatic;
    c.parallel.tensor = layout.tp, c.parallel.expert_tensor = layout.expert_tp;
    c.parallel.zero = layout.zero;
    return c;
  };
  const TrainingRun whole = train_on_threads(config({}, "whole"), 1, 3);
  const std::vector<Layout> some = {{},
                                    {.ranks = 4, .tp = 2, .ep = 4, .zero = 2},
                                    {.ranks = 2, .tp = 2},
                                    {.ranks = 4, .ep = 2, .zero = 1},
                                    {.ranks = 4, .tp = 2, .ep = 2, .expert_tp = 2, .zero = 1},
                                    {.ranks = 4, .ep = 1, .expert_tp = 4}};
  for (size_t w = 0; w < some.size(); ++w) {
    const std::string output = fmt::format("of_{}", w);
    train_on_threads(config(some[w], output), some[w].ranks, 2,
                     [](train::Trainer& trainer) { trainer.save(); });
    for (const Layout& reader : some) {
      SCOPED_TRACE(fmt::format("{} after {}", reader.str(), some[w].str()));
      const TrainingRun rest = train_on_threads(config(reader, output), reader.ranks, 1);
      ASSERT_EQ(rest.steps.front().step, 3) << "did not resume";
      EXPECT_NEAR(rest.steps.front().loss, whole.steps.back().loss, 1e-10);
      EXPECT_NEAR(rest.steps.front().grad_norm, whole.steps.back().grad_norm, 1e-9);
    }
  }
}

}  // namespace
}  // namespace ziggurat
