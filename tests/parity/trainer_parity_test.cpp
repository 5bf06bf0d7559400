// A training run doesn't depend on who shares it: expert parallelism, data parallelism against accumulation,
// strict bits on 1, 2 and 4 ranks, recomputation, resuming.
#include <cmath>

#include <gtest/gtest.h>

#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/thread.h>

namespace ziggurat {
namespace {

using test::expect_same_run;
using test::small_dense;
using test::small_pr_moe;
using test::train_on_threads;
using test::TrainingRun;
using ziggurat::testing::TempDir;

constexpr int64_t kSteps = 3;

struct Case {
  const char* name;
  train::Precision precision;
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

std::string case_name(const ::testing::TestParamInfo<Case>& c) { return c.param.name; }

// Two orders of the same sums: each result is a sum of at most `terms` products, and later steps carry on
// from slightly different weights.
double rounding(train::Precision precision) {
  constexpr double kTerms = 256, kSlack = 8;  // tokens of a step; steps and depth
  const double eps = precision == train::Precision::fp64 ? 0x1p-53 : 0x1p-24;
  return kSlack * kTerms * eps;
}

void expect_same_to_rounding(const TrainingRun& got, const TrainingRun& want, train::Precision precision,
                             const std::string& what) {
  const double tolerance = rounding(precision);
  ASSERT_EQ(got.steps.size(), want.steps.size());
  for (size_t i = 0; i < want.steps.size(); ++i) {
    EXPECT_NEAR(got.steps[i].loss, want.steps[i].loss, tolerance) << what << ", step " << i;
    EXPECT_NEAR(got.steps[i].auxiliary_loss, want.steps[i].auxiliary_loss, tolerance) << what;
    EXPECT_NEAR(got.steps[i].grad_norm, want.steps[i].grad_norm, tolerance * want.steps[i].grad_norm) << what;
    EXPECT_EQ(got.steps[i].drop_rate(), want.steps[i].drop_rate()) << what;
  }
  // Elements that cancel to almost nothing are compared with the size of the whole gradient's elements.
  const double typical = want.steps.back().grad_norm / 100;
  test::expect_close(got.gradients, want.gradients, tolerance, typical, what + ", gradients");
}

class TrainerParity : public ::testing::TestWithParam<Case> {};

TEST_P(TrainerParity, ExpertsOnAnyNumberOfRanksGiveTheSameGradients) {
  const TempDir folder;
  auto config = [&](int ep) {
    train::RunConfig c = small_pr_moe(folder.path(), ep);
    c.precision = GetParam().precision;
    return c;
  };
  const TrainingRun alone = train_on_threads(config(1), 1, 1);
  EXPECT_GT(alone.steps[0].drop_rate(), 0);  // else random token selection was not under test
  for (const auto& [ranks, ep] : std::vector<std::pair<int, int>>{{2, 2}, {4, 1}, {4, 2}, {4, 4}}) {
    const TrainingRun spread = train_on_threads(config(ep), ranks, 1);
    expect_same_to_rounding(spread, alone, GetParam().precision, fmt::format("{} ranks, ep {}", ranks, ep));
  }
}

TEST_P(TrainerParity, RanksAreAsGoodAsAccumulation) {
  const TempDir folder;
  train::RunConfig config = small_dense(folder.path());
  config.precision = GetParam().precision;
  config.batch.global_batch = 8;  // 4 micro-batches
  const TrainingRun accumulated = train_on_threads(config, 1, kSteps);
  for (const int ranks : {2, 4}) {
    const TrainingRun parallel = train_on_threads(config, ranks, kSteps);
    expect_same_to_rounding(parallel, accumulated, GetParam().precision, fmt::format("{} ranks", ranks));
  }
}

TEST_P(TrainerParity, RanksThatShareTheUpdateMakeTheSame) {
  const TempDir folder;
  for (const auto& [ranks, ep] : std::vector<std::pair<int, int>>{{1, 1}, {2, 1}, {4, 1}, {4, 2}, {4, 4}}) {
    train::RunConfig config = small_pr_moe(folder.path(), ep);
    config.precision = GetParam().precision;
    const TrainingRun whole = train_on_threads(config, ranks, 1);
    for (const int zero : {1, 2}) {
      config.parallel.zero = zero;
      const TrainingRun shared = train_on_threads(config, ranks, 1);
      const std::string what = fmt::format("{} ranks, ep {}, ZeRO {}", ranks, ep, zero);
      expect_same_to_rounding(shared, whole, GetParam().precision, what);
      const double typical = whole.steps.back().grad_norm / 100, tolerance = rounding(GetParam().precision);
      test::expect_close(shared.moments, whole.moments, tolerance, typical, what + ", moments");
      ASSERT_EQ(shared.weights.size(), whole.weights.size());  // all of them, by whoever owns them
    }
  }
}

// Reduced behind backward or after it, with blocks that are run again or not.
TEST_P(TrainerParity, WhenGradientsAreSummedDoesNotMatter) {
  const TempDir folder;
  for (const int zero : {0, 1, 2}) {
    for (const bool recompute : {false, true}) {
      train::RunConfig config = small_pr_moe(folder.path(), 2);
      config.precision = GetParam().precision;
      config.parallel.zero = zero;
      config.train.recompute = recompute;
      config.parallel.bucket = 20'000;
      config.parallel.overlap = false;
      const TrainingRun after = train_on_threads(config, 4, kSteps);
      config.parallel.overlap = true;
      expect_same_run(train_on_threads(config, 4, kSteps), after, fmt::format("ZeRO {}", zero));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, TrainerParity,
                         ::testing::Values(Case{"fp64", train::Precision::fp64},
                                           Case{"fp32", train::Precision::fp32}),
                         case_name);

// Ranks as on two nodes, where also sums go by nodes.
std::function<void(Communicator&)> on_two_nodes(AllToAll form) {
  return [form](Communicator& world) {
    world.use_nodes({.node = world.rank() / (world.size() / 2), .all_to_all = form, .sums_from = 1});
  };
}

class StrictTrainer : public ::testing::TestWithParam<Case> {
 protected:
  train::RunConfig config(int expert_parallel = 4) const {
    train::RunConfig c = small_pr_moe(folder_.path(), expert_parallel);
    c.precision = GetParam().precision;
    c.reproducible = Reproducible::strict;
    return c;
  }
  TempDir folder_;
};

TEST_P(StrictTrainer, SameBitsOnAnyNumberOfRanks) {
  const TrainingRun alone = train_on_threads(config(), 1, kSteps);
  EXPECT_GT(alone.steps[0].drop_rate(), 0);
  for (const auto& [ranks, ep] : std::vector<std::pair<int, int>>{{2, 1}, {2, 2}, {4, 1}, {4, 2}, {4, 4}}) {
    expect_same_run(train_on_threads(config(ep), ranks, kSteps), alone,
                    fmt::format("{} ranks, ep {}", ranks, ep));
  }
}

TEST_P(StrictTrainer, SameBitsWhoeverUpdatesWhat) {
  const TrainingRun alone = train_on_threads(config(), 1, kSteps);
  for (const auto& [ranks, ep] : std::vector<std::pair<int, int>>{{1, 1}, {2, 1}, {2, 2}, {4, 1}, {4, 2}}) {
    for (const int zero : {1, 2}) {
      train::RunConfig shared = config(ep);
      shared.parallel.zero = zero;
      shared.parallel.bucket = zero == 2 ? 20'000 : shared.parallel.bucket;
      expect_same_run(train_on_threads(shared, ranks, kSteps), alone,
                      fmt::format("{} ranks share the update, ep {}, ZeRO {}", ranks, ep, zero));
    }
  }
}

TEST_P(StrictTrainer, SameBitsOfEveryOptimizer) {
  std::map<std::string, std::vector<double>> weights;
  for (const OptimizerKind kind : {OptimizerKind::lion, OptimizerKind::muon, OptimizerKind::adafactor}) {
    train::RunConfig c = config();
    c.optimizer.kind = kind;
    c.optimizer.adafactor.least_factored = 16;
    const TrainingRun alone = train_on_threads(c, 1, kSteps);
    c.checkpoint.resume = train::Resume::automatic;
    c.output = folder_ / enum_text(kind);
    c.parallel.zero = kind == OptimizerKind::lion ? 1 : 0;
    train_on_threads(c, 4, 1, [](train::Trainer& trainer) { trainer.save(); });
    TrainingRun rest = train_on_threads(c, 2, kSteps - 1);
    ASSERT_EQ(rest.steps.front().step, 2) << "did not resume";
    rest.steps.insert(rest.steps.begin(), alone.steps.front());
    expect_same_run(rest, alone, enum_text(kind));
    weights[enum_text(kind)] = alone.weights.begin()->second;
  }
  EXPECT_NE(weights["lion"], weights["muon"]);
  EXPECT_NE(weights["muon"], weights["adafactor"]);
}

// Rounding draws are functions of the element, not of who updates it.
TEST_P(StrictTrainer, SameBitsWithRoundedState) {
  for (const bool masters : {false, true}) {
    train::RunConfig rounded = config();
    rounded.optimizer.moments = StateDtype::bf16;
    if (masters) rounded.optimizer.masters = StateDtype::bf16;
    const TrainingRun alone = train_on_threads(rounded, 1, kSteps);
    EXPECT_NE(alone.weights, train_on_threads(config(), 1, kSteps).weights) << "it has an effect";
    rounded.checkpoint.resume = train::Resume::automatic;
    rounded.output = folder_ / fmt::format("rounded {}", masters);
    rounded.parallel.zero = 1;
    train_on_threads(rounded, 4, 1, [](train::Trainer& trainer) { trainer.save(); });
    rounded.parallel.zero = 0;
    TrainingRun rest = train_on_threads(rounded, 2, kSteps - 1);
    ASSERT_EQ(rest.steps.front().step, 2) << "did not resume";
    rest.steps.insert(rest.steps.begin(), alone.steps.front());
    expect_same_run(rest, alone, "resumed on others");
  }
}

// Any number of ranks and stage of ZeRO loads what any other saved.
TEST_P(StrictTrainer, SameBitsWhenResumedBySharers) {
  const TrainingRun whole = train_on_threads(config(), 1, kSteps);
  const std::vector<std::pair<int, int>> layouts = {{1, 0}, {2, 1}, {4, 2}, {4, 0}};
  for (const auto& [writers, zero] : layouts) {
    train::RunConfig saving = config();
    saving.output = folder_ / fmt::format("{}_{}", writers, zero);
    saving.checkpoint.resume = train::Resume::automatic;
    saving.parallel.zero = zero;
    train_on_threads(saving, writers, 1, [](train::Trainer& trainer) { trainer.save(); });
    for (const auto& [readers, stage] : layouts) {
      train::RunConfig resuming = saving;
      resuming.parallel.zero = stage;
      TrainingRun rest = train_on_threads(resuming, readers, kSteps - 1);
      ASSERT_EQ(rest.steps.front().step, 2) << "did not resume";
      rest.steps.insert(rest.steps.begin(), whole.steps.front());
      expect_same_run(rest, whole,
                      fmt::format("{} ranks, ZeRO {} after {}, {}", readers, stage, writers, zero));
    }
  }
}

TEST_P(StrictTrainer, SameBitsOnNodes) {
  const TrainingRun alone = train_on_threads(config(), 1, kSteps);
  for (const int ranks : {4, 8}) {  // so many share the experts, on two nodes
    for (const AllToAll form : {AllToAll::flat, AllToAll::hierarchical}) {
      const auto nodes = on_two_nodes(form);
      expect_same_run(train_on_threads(config(ranks), ranks, kSteps, {}, nodes), alone,
                      fmt::format("{} ranks, {}", ranks, form == AllToAll::flat ? "flat" : "hierarchical"));
    }
  }
}

TEST_P(StrictTrainer, SameBitsWhenResumedOnOtherRanks) {
  const TrainingRun whole = train_on_threads(config(), 1, kSteps);
  train::RunConfig resuming = config();
  resuming.checkpoint.resume = train::Resume::automatic;
  train_on_threads(resuming, 4, 1, [](train::Trainer& trainer) { trainer.save(); });
  for (const int ranks : {4, 2, 1}) {
    TrainingRun rest = train_on_threads(resuming, ranks, kSteps - 1);
    ASSERT_EQ(rest.steps.front().step, 2) << "did not resume";
    rest.steps.insert(rest.steps.begin(), whole.steps.front());
    expect_same_run(rest, whole, fmt::format("resumed on {} ranks", ranks));
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, StrictTrainer,
                         ::testing::Values(Case{"fp32", train::Precision::fp32},
                                           Case{"bf16", train::Precision::bf16}),
                         case_name);

// Strict lanes are worth nothing if the fast mode gave the same bits by itself.
TEST(LayoutTrainer, BitsDependOnTheNumberOfRanks) {
  const TempDir folder;
  const train::RunConfig config = small_dense(folder.path());
  const TrainingRun alone = train_on_threads(config, 1, 1);
  EXPECT_NE(train_on_threads(config, 2, 1).gradients, alone.gradients);
  expect_same_run(train_on_threads(config, 1, 1), alone, "the same layout again");
}

TEST(LayoutTrainer, BitsDoNotDependOnTheWayOfAllToAlls) {
  const TempDir folder;
  const train::RunConfig config = small_pr_moe(folder.path(), 4);
  const TrainingRun flat = train_on_threads(config, 4, 2, {}, on_two_nodes(AllToAll::flat));
  for (const AllToAll form : {AllToAll::automatic, AllToAll::hierarchical}) {
    expect_same_run(train_on_threads(config, 4, 2, {}, on_two_nodes(form)), flat, "by nodes");
  }
}

TEST(RecomputingTrainer, ChangesNoBit) {
  const TempDir folder;
  for (const Reproducible mode : {Reproducible::layout, Reproducible::strict}) {
    train::RunConfig config = small_pr_moe(folder.path());
    config.reproducible = mode;
    const TrainingRun kept = train_on_threads(config, 2, 2);
    config.train.recompute = true;
    expect_same_run(train_on_threads(config, 2, 2), kept, "recomputed");
  }
}

// Normalised queries and keys have weights of their own, and keep something for backward.
TEST(QkNormTrainer, SameBitsOnAnyNumberOfRanksRecomputedAndResumed) {
  for (const nn::QkNorm qk_norm : {nn::QkNorm::head, nn::QkNorm::width}) {
    const TempDir folder;
    train::RunConfig config = small_pr_moe(folder.path());
    config.model.qk_norm = qk_norm;
    config.reproducible = Reproducible::strict;
    const TrainingRun alone = train_on_threads(config, 1, kSteps);
    const std::vector<double>& weight = alone.weights.at("blocks.1.attention.k_norm.weight[0]");
    EXPECT_NE(weight.at(0), 1) << "it was not trained";
    const std::string what = enum_text(qk_norm);
    config.train.recompute = true;
    expect_same_run(train_on_threads(config, 2, kSteps), alone, what + ", recomputed on two ranks");
    config.checkpoint.resume = train::Resume::automatic;
    train_on_threads(config, 4, 1, [](train::Trainer& trainer) { trainer.save(); });
    TrainingRun rest = train_on_threads(config, 2, kSteps - 1);
    ASSERT_EQ(rest.steps.front().step, 2) << "did not resume";
    rest.steps.insert(rest.steps.begin(), alone.steps.front());
    expect_same_run(rest, alone, what + ", resumed on two ranks");
  }
}

TEST(ResumedTrainer, GoesOnAsIfNothingHadHappened) {
  const TempDir folder;
  for (const int ranks : {1, 2}) {
    train::RunConfig config = small_pr_moe(folder / fmt::format("{}", ranks));
    config.precision = train::Precision::bf16;
    config.batch.rampup = {.start = 8, .increment = 8, .samples = 24};
    const TrainingRun whole = train_on_threads(config, ranks, 4);
    EXPECT_LT(whole.steps[0].samples, whole.steps[3].samples - whole.steps[2].samples);  // the ramp-up ramps
    config.checkpoint.resume = train::Resume::automatic;
    train_on_threads(config, ranks, 2, [](train::Trainer& trainer) { trainer.save(); });
    TrainingRun rest = train_on_threads(config, ranks, 2);
    ASSERT_EQ(rest.steps.front().step, 3);
    rest.steps.insert(rest.steps.begin(), whole.steps.begin(), whole.steps.begin() + 2);
    expect_same_run(rest, whole, fmt::format("{} ranks", ranks));
  }
}

TEST(ResumedTrainer, RefusesAnotherSeedAndOtherData) {
  const TempDir folder;
  train::RunConfig config = small_dense(folder.path());
  config.checkpoint.resume = train::Resume::automatic;
  train_on_threads(config, 1, 1, [](train::Trainer& trainer) { trainer.save(); });
  const auto message = [](const train::RunConfig& c) {
    return ziggurat::testing::error_of(ErrorKind::checkpoint, [&] { train_on_threads(c, 1, 1); });
  };
  train::RunConfig other = config;
  other.seed = 77;
  EXPECT_NE(message(other).find("seed"), std::string::npos);
  other = config;
  other.data.seed = 77;
  EXPECT_NE(message(other).find("other data"), std::string::npos);
}

TEST(Trainer, RefusesToGoOnWithAGradientThatIsNotFinite) {
  const TempDir folder;
  const std::string message = ziggurat::testing::error_of(ErrorKind::numeric, [&] {
    run_on_threads(2, [&](Communicator& world) {
      train::Trainer trainer(small_dense(folder.path()), world);
      trainer.step();
      trainer.params().find("final_norm.weight").param.value.data<float>()[3] = NAN;
      trainer.step();
    });
  });
  EXPECT_NE(message.find("step 2"), std::string::npos) << message;
  EXPECT_NE(message.find("loss"), std::string::npos) << "before its update: " << message;
}

}  // namespace
}  // namespace ziggurat
