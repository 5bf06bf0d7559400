// Whole training runs on the emulated device: what they compute, what they wait for and what memory they take
// is what the CPU computes, nothing inside a micro-batch, and what the plan said.
#include <cmath>
#include <map>

#include "tests/emulation/emulated_test.h"
#include "tests/support/source_dir.h"
#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/config/config.h>
#include <ziggurat/train/review.h>

namespace ziggurat::emulation {
namespace {

using test::small_dense;
using test::small_pr_moe;
using test::train_on_threads;
using test::TrainingRun;
using train::Precision;
using train::RunConfig;
using ::ziggurat::testing::TempDir;

constexpr int64_t kSteps = 2;

class EmulatedTraining : public EmulatedTest {
 protected:
  // Little of everything: a thread of the device takes a microsecond of the host's here for every access.
  RunConfig small(RunConfig config) const {
    config.batch.global_batch = 2 * config.batch.micro_batch;
    config.eval.sequences = 3;
    return config;
  }
  RunConfig dense() const { return small(small_dense(folder.path())); }
  RunConfig pr_moe() const {
    RunConfig config = small(small_pr_moe(folder.path(), 1));
    config.model.blocks.resize(1);
    return config;
  }

  TempDir folder;
};

RunConfig without_graphs(RunConfig config) {
  config.train.graphs = train::Graphs::off;
  return config;
}

RunConfig on_device(RunConfig config) {
  config.device = Device::cuda;
  return config;
}

void see_prefixes_whole(RunConfig& config) {
  config.data.ul2.until = 1 << 20;
  config.data.ul2.sentinels = 8;
  config.data.ul2.bidirectional = true;
}

// Each result is a sum of some hundreds of products in another order; the second step carries on from
// slightly different weights.
constexpr double kRounding = 0x1p-24 * 4096;

void expect_same_to_rounding(const TrainingRun& got, const TrainingRun& want) {
  ASSERT_EQ(got.steps.size(), want.steps.size());
  for (size_t i = 0; i < want.steps.size(); ++i) {
    const train::StepRecord &g = got.steps[i], &w = want.steps[i];
    EXPECT_NEAR(g.loss, w.loss, kRounding * w.loss) << "step " << i;
    EXPECT_NEAR(g.auxiliary_loss, w.auxiliary_loss, kRounding) << "step " << i;
    EXPECT_NEAR(g.grad_norm, w.grad_norm, kRounding * w.grad_norm) << "step " << i;
    ASSERT_EQ(g.layers.size(), w.layers.size());
    for (size_t layer = 0; layer < w.layers.size(); ++layer) {
      EXPECT_EQ(g.layers[layer].tokens_per_expert, w.layers[layer].tokens_per_expert);
      EXPECT_EQ(g.layers[layer].drop_rate, w.layers[layer].drop_rate);
      EXPECT_NEAR(g.layers[layer].entropy, w.layers[layer].entropy, kRounding);
    }
  }
  EXPECT_NEAR(got.validation.loss, want.validation.loss, kRounding * want.validation.loss);
  EXPECT_EQ(got.validation.tokens, want.validation.tokens);
  const double typical = want.steps.back().grad_norm / 100;
  test::expect_close(got.gradients, want.gradients, kRounding * 8, typical, "gradients");
}

// |got - exact| / |exact|, in the L2 norm.
double error_of(const std::vector<double>& got, const std::vector<double>& exact) {
  double squares = 0, size = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    squares += (got[i] - exact[i]) * (got[i] - exact[i]), size += exact[i] * exact[i];
  }
  return size == 0 ? std::sqrt(squares) : std::sqrt(squares / size);
}

// By tensor, of which `all` has rows.
std::map<std::string, std::vector<double>> whole(const test::ByName& all) {
  std::map<std::string, std::vector<double>> tensors;
  for (const auto& [name, row] : all) {
    std::vector<double>& values = tensors[name.substr(0, name.rfind('['))];
    values.insert(values.end(), row.begin(), row.end());
  }
  return tensors;
}

// In bf16 both round thousands of times. What they should have computed is known in f32, and the device may
// be no farther from it than the CPU, but for chance.
void expect_device_as_good_as_cpu_in_bf16(RunConfig config) {
  const TrainingRun exact = train_on_threads(config, 1, 1);
  config.precision = Precision::bf16;
  const TrainingRun cpu = train_on_threads(config, 1, 1), device = train_on_threads(on_device(config), 1, 1);
  EXPECT_NEAR(device.steps[0].loss, exact.steps[0].loss, 0x1p-8 * exact.steps[0].loss);
  const auto of_cpu = whole(cpu.gradients), of_device = whole(device.gradients);
  for (const auto& [name, values] : whole(exact.gradients)) {
    EXPECT_LE(error_of(of_device.at(name), values), 1.5 * error_of(of_cpu.at(name), values) + 0x1p-8) << name;
  }
}

void expect_device_equals_cpu(const RunConfig& config, int ranks = 1) {
  const TrainingRun want = train_on_threads(config, ranks, kSteps);
  const TrainingRun got = train_on_threads(on_device(config), ranks, kSteps);
  expect_same_to_rounding(got, want);
}

TEST_F(EmulatedTraining, RanksMayShareTheUpdate) {
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    RunConfig config = dense();
    config.precision = precision;
    const TrainingRun alone = train_on_threads(on_device(config), 2, kSteps);
    config.parallel.zero = 1;
    const TrainingRun shared = train_on_threads(on_device(config), 2, kSteps);
    expect_same_to_rounding(shared, alone);
  }
}

TEST_F(EmulatedTraining, Dense) { expect_device_equals_cpu(dense()); }

TEST_F(EmulatedTraining, DenseInBf16) { expect_device_as_good_as_cpu_in_bf16(dense()); }

TEST_F(EmulatedTraining, ResidualMoe) { expect_device_equals_cpu(pr_moe()); }

TEST_F(EmulatedTraining, TopTwoExpertsInBf16) {
  RunConfig config = pr_moe();
  config.model.moe.top_k = 2;
  config.model.moe.drop = kernels::DropPolicy::none;
  expect_device_as_good_as_cpu_in_bf16(config);
}

TEST_F(EmulatedTraining, RecomputedRotatedAndGrouped) {
  RunConfig config = pr_moe();
  config.train.recompute = true;
  config.model.positions = model::Positions::rope;
  config.model.norm = nn::NormKind::rms_norm;
  config.model.activation = nn::MlpKind::swiglu;
  config.model.kv_heads = 2;
  config.model.qk_norm = nn::QkNorm::head;
  config.model.tied_embeddings = false;
  config.model.bias = false;
  expect_device_equals_cpu(config);
}

TEST_F(EmulatedTraining, DocumentsKeptApart) {
  ziggurat::testing::write_documents(folder / "documents.h5",
                                     [](int64_t document) { return 1 + document % 9; });
  RunConfig config = dense();
  config.data.train = config.data.valid = folder / "documents.h5";
  config.data.reset_positions = config.data.reset_attention = config.data.mask_eod_loss = true;
  expect_device_equals_cpu(config);
}

TEST_F(EmulatedTraining, WindowsPrefixesAndSmoothedLabels) {
  RunConfig config = dense();
  config.model.window = 5;
  see_prefixes_whole(config);
  config.objective.label_smoothing = 0.1;
  config.objective.z_loss = 1e-3;
  expect_device_equals_cpu(config);
  expect_device_as_good_as_cpu_in_bf16(config);
}

TEST_F(EmulatedTraining, EveryOptimizerAndTheAverage) {
  for (const OptimizerKind kind : {OptimizerKind::lion, OptimizerKind::muon, OptimizerKind::adafactor}) {
    SCOPED_TRACE(static_cast<int>(kind));
    RunConfig config = pr_moe();
    config.optimizer.kind = kind;
    config.optimizer.lr = 1e-3;
    config.optimizer.average = 0.9;
    config.optimizer.adafactor.least_factored = 16;
    expect_device_equals_cpu(config);
  }
}

// The files of configs/tiny with what other models than GPT and PR-MoE have, with less of everything.
class EmulatedConfigs : public EmulatedTraining, public ::testing::WithParamInterface<const char*> {};

TEST_P(EmulatedConfigs, TrainAsOnTheCpu) {
  RunConfig config;
  const std::string name = GetParam();
  std::vector<std::string> overrides = {"batch.sequence_length=16",  "batch.micro_batch=2",
                                        "batch.global_batch=4",      "eval.sequences=3",
                                        "optimizer.warmup_tokens=1", "train.tokens=1M"};
  if (name == "openmoe") overrides.push_back("model.moe.group_tokens=16");
  load_config(config, test::source_dir() + "/configs/tiny/" + name + ".yaml", overrides);
  config.output = folder.path();
  expect_device_equals_cpu(config);
}

INSTANTIATE_TEST_SUITE_P(Tiny, EmulatedConfigs,
                         ::testing::Values("deepseek_moe", "modern_moe", "olmoe", "openmoe", "qwen2_moe",
                                           "qwen3_moe"),
                         [](const auto& tested) { return std::string(tested.param); });

// The host queues micro-batch after micro-batch: it waits as often in a step of two as in one of six.
TEST_F(EmulatedTraining, NobodyWaitsInsideAMicroBatch) {
  for (const RunConfig& start : {dense(), pr_moe()}) {
    RunConfig config = on_device(start);
    const auto waits = [&](int64_t micro_batches) {
      config.batch.global_batch = micro_batches * config.batch.micro_batch;
      const TrainingRun run = train_on_threads(config, 1, 1);
      EXPECT_GT(run.steps[0].launches, 0);
      return run.steps[0].waits;
    };
    EXPECT_EQ(waits(6), waits(2));
  }
}

TEST_F(EmulatedTraining, MemoryIsWhatThePlanSaid) {
  for (const RunConfig& start : {dense(), pr_moe()}) {
    const RunConfig config = on_device(start);
    const train::MemoryPlan plan = test::plan_on_threads(config, 1);
    train_on_threads(config, 1, kSteps, [&](train::Trainer& trainer) {
      const train::Executor::Memory used = trainer.high_water();
      EXPECT_EQ(used.activations, plan.activations);
      EXPECT_EQ(used.activation_gradients, plan.activation_gradients);
      EXPECT_EQ(used.workspace, plan.workspace);
    });
    EXPECT_GT(plan.graphs, 0);
    EXPECT_EQ(test::plan_on_threads(without_graphs(config), 1).graphs, 0);
  }
}

// A checkpoint knows no device.
TEST_F(EmulatedTraining, CheckpointsGoOnAnywhere) {
  RunConfig config = pr_moe();
  config.checkpoint.resume = train::Resume::automatic;
  const auto save = [](train::Trainer& trainer) { trainer.save(); };
  const auto run = [&](const char* output, Device first, Device second) {
    config.output = (folder / output).string();
    config.device = first;
    train_on_threads(config, 1, 1, save);
    config.device = second;
    return train_on_threads(config, 1, 1);
  };
  const TrainingRun cpu = run("cpu", Device::cpu, Device::cpu);
  expect_same_to_rounding(run("to_device", Device::cpu, Device::cuda), cpu);
  expect_same_to_rounding(run("from_device", Device::cuda, Device::cpu), cpu);
  expect_same_to_rounding(run("device", Device::cuda, Device::cuda), cpu);
}

TEST_F(EmulatedTraining, DataAndExpertParallelRanksShareTheDevice) {
  RunConfig config = pr_moe();
  config.model.blocks[0].pattern[1].expert_parallel = 2;
  expect_device_equals_cpu(config, 2);
}

void give_each_rank_its_device(Communicator& world) { EXPECT_EQ(world.use_devices(), ""); }

TEST_F(EmulatedTraining, DataAndExpertParallelRanksHaveADeviceEach) {
  RunConfig config = pr_moe();
  config.model.blocks[0].pattern[1].expert_parallel = 2;
  const TrainingRun want = train_on_threads(config, 2, kSteps);
  expect_same_to_rounding(train_on_threads(on_device(config), 2, kSteps, {}, give_each_rank_its_device),
                          want);
  EXPECT_GT(counts("all_reduce").launches, 0);
  EXPECT_GT(counts("all_to_all").launches, 0);
}

// Devices that exchange by themselves are not waited for: neither for a gradient nor for a micro-batch.
TEST_F(EmulatedTraining, NobodyWaitsForExchangesBetweenDevices) {
  for (const RunConfig& start : {dense(), pr_moe()}) {
    RunConfig config = on_device(start);
    const auto waits = [&](int ranks, int64_t micro_batches_of_rank) {
      config.batch.global_batch = ranks * micro_batches_of_rank * config.batch.micro_batch;
      return train_on_threads(config, ranks, 1, {}, give_each_rank_its_device).steps[0].waits;
    };
    EXPECT_EQ(waits(2, 2), waits(1, 1));
  }
}

// Matrices and tokens cut over two ranks, experts over all; through the host's memory and between devices.
TEST_F(EmulatedTraining, RanksMayCutMatrices) {
  RunConfig moe = pr_moe(), shared = pr_moe(), recomputed = dense();
  moe.model.blocks[0].pattern[1].ffn = model::FfnKind::moe;
  shared.model.blocks[0].pattern[1].expert_parallel = 2;
  recomputed.train.recompute = true;
  for (RunConfig config : {dense(), recomputed, moe, pr_moe(), shared}) {
    config.parallel.tensor = 2;
    const TrainingRun want = train_on_threads(config, 2, kSteps);
    const train::MemoryPlan plan = test::plan_on_threads(on_device(config), 2);
    const auto expect_planned = [&](train::Trainer& trainer) {
      const train::Executor::Memory used = trainer.high_water();
      const auto sum = [](const auto& m) {
        return static_cast<double>(m.activations + m.activation_gradients + m.workspace);
      };
      EXPECT_TRUE(plan.spare > 0 || std::abs(sum(used) - sum(plan)) <= 0.02 * sum(plan))
          << sum(used) << " bytes, planned " << sum(plan);
    };
    expect_same_to_rounding(train_on_threads(on_device(config), 2, kSteps, expect_planned), want);
    expect_same_to_rounding(train_on_threads(on_device(config), 2, kSteps, {}, give_each_rank_its_device),
                            want);
  }
}

// Each expert's matrices are cut over two ranks, which bring each other their rows.
TEST_F(EmulatedTraining, RanksMayCutExperts) {
  RunConfig shared = pr_moe(), both = pr_moe();
  shared.model.blocks[0].pattern[1].expert_parallel = 2;
  both.parallel.tensor = 2;
  for (auto [config, ranks] : {std::pair(pr_moe(), 2), std::pair(shared, 4), std::pair(both, 2)}) {
    SCOPED_TRACE(ranks);
    config.batch.global_batch = ranks * config.batch.micro_batch;
    config.parallel.expert_tensor = 2;
    const TrainingRun want = train_on_threads(config, ranks, kSteps);
    if (ranks == 2) expect_same_to_rounding(train_on_threads(on_device(config), ranks, kSteps), want);
    expect_same_to_rounding(train_on_threads(on_device(config), ranks, kSteps, {}, give_each_rank_its_device),
                            want);
    EXPECT_GT(test::plan_on_threads(on_device(config), ranks).spare, 0);
  }
  RunConfig config = pr_moe();
  config.precision = Precision::bf16, config.parallel.expert_tensor = 2;
  EXPECT_NEAR(train_on_threads(on_device(config), 2, 1, {}, give_each_rank_its_device).steps[0].loss,
              train_on_threads(config, 2, 1).steps[0].loss, 0.05);
}

// Alone, and where the vocabulary of both lies in parts on two ranks; with graphs and without.
TEST_F(EmulatedTraining, AStudentLearnsFromATeacher) {
  RunConfig teacher = dense();
  teacher.output = (folder / "teacher").string(), teacher.seed = 5;
  train_on_threads(teacher, 1, 1, [](train::Trainer& trainer) { trainer.save(); });
  for (const double temperature : {1.0, 2.0}) {
    RunConfig config = pr_moe();
    config.distil.teacher = teacher.output;
    config.distil.temperature = temperature;
    config.distil.weight = {.start = 0.8, .until = config.train.tokens};
    config.objective.z_loss = 1e-3;
    expect_device_equals_cpu(config);
    config.parallel.tensor = 2;
    const TrainingRun want = train_on_threads(config, 2, kSteps);
    expect_same_to_rounding(train_on_threads(on_device(config), 2, kSteps), want);
    const TrainingRun got = train_on_threads(on_device(config), 2, kSteps, {}, give_each_rank_its_device);
    expect_same_to_rounding(got, want);
    if (temperature == 1) continue;
    test::expect_same_run(
        train_on_threads(without_graphs(on_device(config)), 2, kSteps, {}, give_each_rank_its_device), got,
        "graphs");
  }
}

TEST_F(EmulatedTraining, MatricesMayBeCutBesideOtherLayouts) {
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    RunConfig config = pr_moe();
    config.precision = precision;
    config.model.blocks[0].pattern[1].expert_parallel = 2;
    config.parallel.tensor = 2, config.parallel.zero = 2;
    if (precision == Precision::bf16) {
      EXPECT_NEAR(train_on_threads(on_device(config), 4, 1).steps[0].loss,
                  train_on_threads(config, 4, 1).steps[0].loss, 0.05);
    } else {
      expect_same_to_rounding(train_on_threads(on_device(config), 4, kSteps, {}, give_each_rank_its_device),
                              train_on_threads(config, 4, kSteps));
    }
  }
}

// Gradients are summed beside what is left of backward, in any order that events allow, with the same bits.
TEST_F(EmulatedTraining, GradientsMayBeSummedBehindBackward) {
  for (const int zero : {0, 1, 2}) {
    for (const train::Graphs graphs : {train::Graphs::off, train::Graphs::automatic}) {
      RunConfig config = on_device(pr_moe());
      config.batch.global_batch = 4 * config.batch.micro_batch;
      config.parallel.bucket = 20'000;  // a parameter or a few
      config.parallel.zero = zero, config.train.graphs = graphs;
      config.parallel.overlap = false;
      const TrainingRun want = train_on_threads(config, 2, 3, {}, give_each_rank_its_device);
      config.parallel.overlap = true;
      for (uint64_t seed = 1; seed <= 2; ++seed) {
        reset(seed);
        const TrainingRun got = train_on_threads(config, 2, 3, {}, give_each_rank_its_device);
        test::expect_same_run(got, want, "overlap");
        EXPECT_EQ(got.steps.back().graphs, want.steps.back().graphs);
      }
    }
  }
}

// By name, what the work of a micro-batch depends on in other ways.
struct GraphCase {
  const char* name;
  RunConfig (*change)(RunConfig);
  bool experts = true;
};
void PrintTo(const GraphCase& c, std::ostream* os) { *os << c.name; }

class EmulatedGraphs : public EmulatedTraining, public ::testing::WithParamInterface<GraphCase> {
 protected:
  RunConfig config() const {
    const GraphCase& c = GetParam();
    RunConfig config = c.experts ? pr_moe() : dense();
    config.batch.global_batch = 3 * config.batch.micro_batch;
    return on_device(c.change(config));
  }
};

// The third step is launches alone.
TEST_P(EmulatedGraphs, ChangeNoBit) {
  constexpr int64_t kStepsOfGraphs = 3;
  RunConfig config = this->config();
  if (config.data.reset_attention) {
    ziggurat::testing::write_documents(folder / "documents.h5",
                                       [](int64_t document) { return 1 + document % 9; });
    config.data.train = config.data.valid = folder / "documents.h5";
  }
  const TrainingRun want = train_on_threads(without_graphs(config), 1, kStepsOfGraphs);
  const TrainingRun got = train_on_threads(config, 1, kStepsOfGraphs);
  test::expect_same_run(got, want, "graphs");
  const int64_t micro_batches = config.batch.global_batch / config.batch.micro_batch;
  const train::StepRecord &off = want.steps.back(), &on = got.steps.back();
  EXPECT_EQ(off.graphs, 0);
  EXPECT_EQ(on.graphs, micro_batches);
  EXPECT_LT(4 * on.launches, 3 * off.launches);  // the update has a launch for each parameter
  EXPECT_EQ(on.waits, off.waits);
}

INSTANTIATE_TEST_SUITE_P(
    Runs, EmulatedGraphs,
    ::testing::Values(GraphCase{"dropout", [](RunConfig c) { return c; }, false},
                      GraphCase{"dropout, bf16, a micro-batch a step",
                                [](RunConfig c) {
                                  c.precision = Precision::bf16, c.batch.global_batch = c.batch.micro_batch;
                                  return c;
                                },
                                false},
                      GraphCase{"packed documents",
                                [](RunConfig c) {
                                  c.data.reset_positions = c.data.reset_attention = c.data.mask_eod_loss =
                                      true;
                                  return c;
                                },
                                false},
                      GraphCase{"random token selection, jitter and Gumbel noise",
                                [](RunConfig c) {
                                  c.model.moe.jitter = 0.1,
                                  c.model.moe.choice_noise = kernels::ChoiceNoise::rsample;
                                  c.model.moe.z_coefficient = 0.1;
                                  return c;
                                }},
                      GraphCase{"top-2 without drops, noise of the second choice, bf16",
                                [](RunConfig c) {
                                  c.precision = Precision::bf16;
                                  c.model.moe.top_k = 2, c.model.moe.drop = kernels::DropPolicy::none;
                                  c.model.moe.choice_noise = kernels::ChoiceNoise::second_expert;
                                  return c;
                                }},
                      GraphCase{"a window, sigmoid scores balanced by a bias, groups of experts",
                                [](RunConfig c) {
                                  c.model.window = 5;
                                  c.model.moe.score = moe::RouterScore::sigmoid;
                                  c.model.moe.top_k = 2;
                                  c.model.blocks[0].pattern[1].experts = 4;
                                  c.model.moe.expert_groups = 2, c.model.moe.chosen_groups = 1;
                                  c.model.moe.balance_bias = true;
                                  c.optimizer.kind = OptimizerKind::lion;
                                  return c;
                                }},
                      GraphCase{"prefixes seen whole, smoothed labels, an average",
                                [](RunConfig c) {
                                  see_prefixes_whole(c);
                                  c.objective.label_smoothing = 0.1;
                                  c.optimizer.average = 0.9;
                                  return c;
                                },
                                false},
                      GraphCase{"fractions of the step, recomputed",
                                [](RunConfig c) {
                                  c.train.recompute = true;
                                  c.model.moe.balance_scope = moe::BalanceScope::global_batch;
                                  return c;
                                }},
                      GraphCase{"rotated, grouped, SwiGLU, recomputed, bf16", [](RunConfig c) {
                                  c.precision = Precision::bf16, c.train.recompute = true;
                                  c.model.positions = model::Positions::rope;
                                  c.model.norm = nn::NormKind::rms_norm;
                                  c.model.activation = nn::MlpKind::swiglu;
                                  c.model.kv_heads = 2;
                                  c.model.qk_norm = nn::QkNorm::head;
                                  c.model.tied_embeddings = false;
                                  return c;
                                }}));

// Of several ranks each records its own stream, and resumes with graphs of its own.
TEST_F(EmulatedTraining, GraphsOfSeveralRanksAndAfterAResume) {
  RunConfig config = on_device(pr_moe());
  config.checkpoint.resume = train::Resume::automatic;
  const auto run = [&](const char* output, RunConfig c) {
    c.output = (folder / output).string();
    train_on_threads(c, 2, 1, [](train::Trainer& trainer) { trainer.save(); });
    return train_on_threads(c, 2, 3);
  };
  const TrainingRun got = run("graphs", config);
  test::expect_same_run(got, run("off", without_graphs(config)), "graphs");
  EXPECT_EQ(got.steps.back().graphs, 1);
}

// Also where experts or matrices are shared, as long as the devices exchange by themselves.
TEST_F(EmulatedTraining, GraphsOfRanksThatExchange) {
  RunConfig shared = on_device(pr_moe()), cut = on_device(dense()), of_step = on_device(pr_moe());
  shared.model.blocks[0].pattern[1].expert_parallel = 2;
  cut.parallel.tensor = 2;
  of_step.model.moe.balance_scope = moe::BalanceScope::global_batch;
  for (RunConfig config : {shared, cut, of_step}) {
    config.batch.global_batch = 6 * config.batch.micro_batch;
    const TrainingRun want = train_on_threads(without_graphs(config), 2, 3, {}, give_each_rank_its_device);
    const TrainingRun got = train_on_threads(config, 2, 3, {}, give_each_rank_its_device);
    test::expect_same_run(got, want, "graphs");
    EXPECT_EQ(got.steps.back().graphs, config.parallel.tensor == 2 ? 6 : 3);
    EXPECT_EQ(got.steps.back().waits, want.steps.back().waits);
  }
}

// Of experts on several ranks the host waits once a layer for counts, or never where all capacity is
// exchanged.
TEST_F(EmulatedTraining, HowOftenTheHostWaitsForSharedExperts) {
  RunConfig config = on_device(pr_moe());
  config.model.blocks[0].pattern[1].experts = 8;
  config.model.blocks[0].pattern[1].expert_parallel = 2;
  const auto waits = [&](int64_t micro_batches_of_rank) {
    config.batch.global_batch = 2 * micro_batches_of_rank * config.batch.micro_batch;
    return train_on_threads(config, 2, 1, {}, give_each_rank_its_device).steps[0].waits;
  };
  EXPECT_EQ(waits(4), waits(2)) << "capacity";
  config.model.moe.drop = kernels::DropPolicy::none;
  EXPECT_EQ(waits(4), waits(2) + 2) << "a layer, two more micro-batches";
}

// More micro-batches to a step change a factor of the balancing loss and of the loss's own gradient.
TEST_F(EmulatedTraining, AGrowingBatchGoesOnWithItsGraphs) {
  RunConfig config = on_device(pr_moe());
  const int64_t one = config.batch.micro_batch;
  config.batch.global_batch = 4 * one;
  config.batch.rampup = {.start = 2 * one, .increment = 2 * one, .samples = 8 * one};
  constexpr int64_t kUntilItGrew = 5;
  const TrainingRun got = train_on_threads(config, 1, kUntilItGrew);
  test::expect_same_run(got, train_on_threads(without_graphs(config), 1, kUntilItGrew), "graphs");
  EXPECT_EQ(got.steps[2].graphs, 2);
  EXPECT_EQ(got.steps.back().graphs, 4);
}

TEST_F(EmulatedTraining, MicroBatchesThatAreNoGraphsSayWhy) {
  RunConfig config = on_device(pr_moe());
  const auto why = [&](int ranks, bool devices_exchange) {
    return train::why_no_graphs(config, ranks, devices_exchange);
  };
  EXPECT_EQ(why(2, false), "");
  EXPECT_NE(train::why_no_graphs(without_graphs(config), 2, true).find("train.graphs is off"),
            std::string::npos);
  config.model.moe.balance_scope = moe::BalanceScope::global_batch;
  EXPECT_EQ(why(1, false), "");
  EXPECT_EQ(why(2, true), "");
  EXPECT_NE(why(2, false).find("balance_scope"), std::string::npos);
  config.model.blocks[0].pattern[1].expert_parallel = 2;
  EXPECT_EQ(why(1, false), "") << "one rank has all experts";
  EXPECT_NE(why(2, false).find("expert_parallel"), std::string::npos);
  EXPECT_EQ(why(2, true), "");
  EXPECT_EQ(train_on_threads(config, 2, kSteps).steps.back().graphs, 0);
  config.model.blocks[0].pattern[1].experts = 8;
  config.model.moe.drop = kernels::DropPolicy::none;
  EXPECT_NE(why(2, true).find("how many rows come"), std::string::npos);
}

TEST_F(EmulatedTraining, WhatTheDeviceDoesNotComputeIsRefusedByKey) {
  RunConfig config = on_device(dense());
  config.precision = Precision::fp64;
  config.reproducible = Reproducible::strict;
  config.model.head_dim = 320;
  try {
    train::check_trainable(config);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config);
    for (const char* key : {"precision: ", "reproducible: ", "model.head_dim: "}) {
      EXPECT_NE(std::string(error.what()).find(key), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace ziggurat::emulation
