// Width transfer: which parameter starts and learns how, and that it does what it is for (the coordinate
// check of Yang et al., arXiv 2203.03466, appendix D).
#include <array>
#include <cmath>
#include <map>

#include <gtest/gtest.h>

#include "tests/support/op_test.h"
#include "tests/support/source_dir.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/model/width_rules.h>
#include <ziggurat/objective/next_token.h>
#include <ziggurat/optim/optimizer.h>
#include <ziggurat/parallel/gradient_reducer.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::model {
namespace {

constexpr int64_t kBase = 32, kVocabulary = 32, kSequences = 4, kLength = 16, kTokens = kSequences * kLength;

enum class Wider { by_heads, in_heads };

// Every kind of layer.
ModelConfig model_of(int64_t width, int64_t base, bool tied, Wider wider = Wider::by_heads) {
  ModelConfig c;
  c.vocab_size = kVocabulary, c.vocab_multiple = kVocabulary, c.max_sequence = kLength;
  c.hidden = width, c.heads = width / 8, c.init_std = 0.1, c.tied_embeddings = tied;
  c.mup_base_hidden = base;
  if (wider == Wider::in_heads) {
    c.heads = kBase / 8;
    c.mup_base_head_dim = base > 0 ? 8 : 0;
  }
  c.moe.drop = moe::DropPolicy::none;
  c.blocks = {
      {.repeat = 1,
       .pattern = {{}, {.ffn = FfnKind::residual_moe, .experts = 4}, {.ffn = FfnKind::moe, .experts = 4}}}};
  return c;
}

// Root mean squares, by layer and of the logits: at the start, and of what some steps changed.
struct Sizes {
  std::map<int64_t, double> start, change;
};
constexpr int64_t kFinalNorm = 3, kLogits = 100;

Sizes sizes_after(int steps, const ModelConfig& config, OptimizerConfig rule = {}, double lr = 4e-3) {
  rule.weight_decay = 0;
  std::vector<int32_t> tokens(kTokens), targets(kTokens);
  const Philox rng(1, Purpose::test);
  for (size_t i = 0; i < kTokens; ++i) tokens[i] = static_cast<int32_t>(rng.bits(i) % kVocabulary);
  for (size_t i = 0; i < kTokens; ++i) targets[i] = tokens[(i + 1) % kTokens];
  Sizes sizes;
  run_on_threads(1, [&](Communicator& world) {
    const ProcessGroups groups(world, ParallelPlan(1, config.expert_parallel_sizes()));
    nn::ParamStore store({.compute = DType::f32});
    Gpt gpt(config, store, groups);
    objective::NextToken next_token(gpt);
    store.finalize();
    parallel::GradientReducer reducer(store, groups, 1);
    Optimizer optimizer(store, groups, rule);
    Arena activations("activations", 1 << 28), gradients("gradients", 1 << 28),
        workspace("workspace", 1 << 28);
    Stream stream;
    Tape tape(activations, gradients, workspace, stream);
    const model::TokenBatch batch{tokens.data(), targets.data(), kSequences, kLength};
    const auto outputs = [&] {
      std::map<int64_t, std::vector<double>> all;
      tape.begin({.training = false});
      gpt.observe([&](int64_t layer, const Tensor& x) { all[layer] = test::to_doubles(x); });
      const Var hidden = gpt.forward(tape, batch);
      gpt.observe({});
      all[kLogits] = test::to_doubles(gpt.logits(tape, hidden, 0, kTokens).value());
      return all;
    };
    const auto rms = [](const std::vector<double>& x) {
      double sum = 0;
      for (const double v : x) sum += v * v;
      return std::sqrt(sum / static_cast<double>(x.size()));
    };
    auto before = outputs();
    for (int step = 0; step < steps; ++step) {
      reducer.begin_step(stream);
      tape.begin({.step = step, .token_weight = 1.0 / kTokens});
      next_token.loss(tape, batch);
      tape.backward();
      reducer.reduce(stream);
      optimizer.update(lr, reducer.squared_norms(stream), {}, workspace, stream);
    }
    const auto after = outputs();
    for (auto& [layer, x] : before) {
      sizes.start[layer] = rms(x);
      for (size_t i = 0; i < x.size(); ++i) x[i] = after.at(layer)[i] - x[i];
      sizes.change[layer] = rms(x);
    }
  });
  return sizes;
}

// By layer: how much larger the changes at so many times the width are.
constexpr int64_t kWider = 8;
std::map<int64_t, double> growth(bool rules, bool tied, Wider wider = Wider::by_heads,
                                 const OptimizerConfig& rule = {}, double lr = 4e-3) {
  constexpr int kSteps = 5;
  const auto sizes = [&](int64_t width) {
    return sizes_after(kSteps, model_of(width, rules ? kBase : 0, tied, wider), rule, lr);
  };
  const Sizes narrow = sizes(kBase), wide = sizes(kWider * kBase);
  std::map<int64_t, double> by_layer;
  for (const auto& [layer, change] : narrow.change) by_layer[layer] = wide.change.at(layer) / change;
  return by_layer;
}

// With each optimizer, at a rate at which its steps show.
struct Rule {
  const char* name;
  OptimizerKind kind;
  double lr;
  double without;  // how much more the last layer changes at least, were there no rules
  MuonScale scale = MuonScale::adamw;
};
void PrintTo(const Rule& r, std::ostream* os) { *os << r.name; }
class CoordinateCheck : public ::testing::TestWithParam<Rule> {};

TEST_P(CoordinateCheck, ActivationsChangeAsMuchAtAnyWidth) {
  OptimizerConfig rule;
  rule.kind = GetParam().kind, rule.muon.scale = GetParam().scale;
  for (const Wider wider : {Wider::by_heads, Wider::in_heads}) {
    for (const bool tied : {true, false}) {
      SCOPED_TRACE(
          fmt::format("{}, {} heads", tied ? "tied" : "untied", wider == Wider::by_heads ? "more" : "wider"));
      std::map<int64_t, double> with = growth(true, tied, wider, rule, GetParam().lr);
      if (tied) with.at(kFinalNorm) *= kWider;  // it has the head's factor
      for (const auto& [layer, ratio] : with) {
        EXPECT_GT(ratio, 0.5) << "layer " << layer;
        EXPECT_LT(ratio, 2) << "layer " << layer;
      }
      const std::map<int64_t, double> without = growth(false, tied, wider, rule, GetParam().lr);
      EXPECT_GT(without.at(2), GetParam().without) << "the check would not see it";
      EXPECT_GT(without.at(kLogits), 2) << "the check would not see it";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizers, CoordinateCheck,
                         ::testing::Values(Rule{"adamw", OptimizerKind::adamw, 4e-3, 2},
                                           Rule{"lion", OptimizerKind::lion, 1e-3, 2},
                                           Rule{"adafactor", OptimizerKind::adafactor, 4e-2, 2},
                                           Rule{"muon_adamw", OptimizerKind::muon, 4e-3, 2},
                                           Rule{"muon_shape", OptimizerKind::muon, 4e-2, 0,
                                                MuonScale::shape}),
                         [](const auto& rule) { return std::string(rule.param.name); });

TEST(WidthRules, ScaleScoresByTheWidthOfHeads) {
  ModelConfig c = model_of(kBase, kBase, true, Wider::in_heads);
  EXPECT_EQ(c.score_scale(), 1 / std::sqrt(8.0));
  c.hidden *= 4;
  EXPECT_DOUBLE_EQ(c.score_scale(), 1 / std::sqrt(8.0) / 4);
  c.mup_base_head_dim = 0;
  EXPECT_DOUBLE_EQ(c.score_scale(), 1 / std::sqrt(32.0));
}

// At the base width nothing changes, bit for bit.
TEST(WidthRules, AreNoneAtTheBaseWidth) {
  const Sizes without = sizes_after(2, model_of(kBase, 0, true)),
              with = sizes_after(2, model_of(kBase, kBase, true));
  EXPECT_EQ(with.start, without.start);
  EXPECT_EQ(with.change, without.change);
}

// The table of scripts/golden/make_mup_goldens.py, by microsoft/mup's own code: at four times the base width.
TEST(WidthRules, AreThoseOfTheAuthorsCode) {
  struct Row {
    const char* name;
    double std, lr;
  };
  constexpr Row kTied[] = {{"embed.token.weight", 1, 1},
                           {"embed.position.weight", 1, 1},
                           {"blocks.0.norm1.weight", 1, 1},
                           {"blocks.0.attention.qkv.weight", 0.5, 0.25},
                           {"blocks.0.attention.qkv.bias", 1, 1},
                           {"blocks.0.attention.out.weight", 0.5, 0.25},
                           {"blocks.0.mlp.up.weight", 0.5, 0.25},
                           {"blocks.0.mlp.down.weight", 0.5, 0.25},
                           {"blocks.1.moe.router.weight", 0.25, 0.25},
                           {"blocks.1.moe.coefficient.weight", 0.25, 0.25},
                           {"blocks.1.moe.experts.up.weight", 0.5, 0.25},
                           {"blocks.1.moe.experts.up.bias", 1, 1},
                           {"blocks.1.moe.experts.down.weight", 0.5, 0.25},
                           {"final_norm.weight", 0.25, 0.25}};
  for (const bool tied : {true, false}) {
    const auto world = make_self_communicator();
    const auto specs = [&](int64_t width) {
      const ModelConfig config = model_of(width, kBase, tied);
      const ProcessGroups groups(*world, ParallelPlan(1, config.expert_parallel_sizes()));
      nn::ParamStore store({.compute = DType::f32});
      const Gpt gpt(config, store, groups);
      std::map<std::string, nn::ParamSpec> all;
      for (const nn::ParamEntry& entry : store.entries()) all[entry.spec.name] = entry.spec;
      return all;
    };
    const auto base = specs(kBase), wide = specs(4 * kBase);
    for (Row row : kTied) {
      if (!tied && std::string(row.name).starts_with("final_norm")) row.std = row.lr = 1;
      EXPECT_DOUBLE_EQ(wide.at(row.name).init.scale, row.std * base.at(row.name).init.scale) << row.name;
      EXPECT_DOUBLE_EQ(wide.at(row.name).lr_scale, row.lr) << row.name;
      EXPECT_EQ(base.at(row.name).lr_scale, 1) << row.name;
    }
    if (tied) continue;
    EXPECT_DOUBLE_EQ(wide.at("head.weight").init.scale, 0.25 * base.at("head.weight").init.scale);
    EXPECT_DOUBLE_EQ(wide.at("head.weight").lr_scale, 0.25);
  }
}

TEST(WidthRules, AreRefusedWhereTheyAreUnknown) {
  const auto refused = [](const std::string& option,
                          const std::string& another = "model.mup_base_hidden=32") {
    const std::array<std::string, 2> options = {option, another};
    train::RunConfig config;
    try {
      load_config(config, test::source_dir() + "/configs/tiny/pr_moe.yaml", options);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  for (const char* kind : {"adamw", "lion", "muon", "adafactor"}) {
    EXPECT_EQ(refused(std::string("optimizer.kind=") + kind), "");
  }
  EXPECT_EQ(refused("model.mup_base_head_dim=8"), "");
  EXPECT_NE(refused("model.mup_base_head_dim=8", "log.every=1").find("mup_base_hidden too"),
            std::string::npos);
  EXPECT_NE(refused("model.init=variance_scaling").find("use init normal"), std::string::npos);
}

}  // namespace
}  // namespace ziggurat::model
