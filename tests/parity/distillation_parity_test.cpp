// A student's run depends on its layout and its teacher's as little as any other run, in either stage; it
// resumes exactly, and its plan is what it takes.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/allocation_counter.h"
#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/comm/thread.h>
#include <ziggurat/objective/distil_config.h>

namespace ziggurat {
namespace {

using test::expect_same_run;
using test::train_on_threads;
using test::TrainingRun;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ziggurat::testing::error_of;
using ziggurat::testing::TempDir;

constexpr int64_t kStepTokens = 16 * 16, kStaged = 2;  // steps with a teacher

class DistillationParity : public ::testing::Test {
 protected:
  void SetUp() override { train_teacher("teacher", 5); }

  void train_teacher(const std::string& name, int64_t seed, int64_t vocab_size = 61) const {
    train::RunConfig c = test::small_pr_moe(folder_ / name, 2);
    c.seed = seed;
    c.model.vocab_size = vocab_size;
    c.optimizer.lr = 3e-2;
    train_on_threads(c, 2, 3, [](train::Trainer& trainer) { trainer.save(); });
  }
  // Shallower than its teacher and with other experts. Dropout and drops in the student, never in the
  // teacher.
  train::RunConfig student(int expert_parallel = 4) const {
    train::RunConfig c = test::small_pr_moe(folder_ / "student", expert_parallel);
    c.model.blocks = {
        {1, {{}, {.ffn = model::FfnKind::residual_moe, .experts = 4, .expert_parallel = expert_parallel}}},
        {1, {{}}}};
    c.distil.teacher = folder_ / "teacher";
    c.distil.weight.until = kStaged * kStepTokens;
    return c;
  }
  train::RunConfig strict(train::Precision precision = train::Precision::fp32) const {
    train::RunConfig c = student();
    c.reproducible = Reproducible::strict;
    c.precision = precision;
    return c;
  }
  TempDir folder_;
};

TEST_F(DistillationParity, StrictBitsAreTheSameOnAnyNumberOfRanksInBothStages) {
  for (const auto precision : {train::Precision::fp32, train::Precision::bf16}) {
    const TrainingRun alone = train_on_threads(strict(precision), 1, 4);
    for (size_t i = 0; i < alone.steps.size(); ++i) {
      EXPECT_EQ(alone.steps[i].part("distillation") > 0, i < kStaged);
      EXPECT_GT(alone.steps[i].part("balance"), 0);
    }
    for (const int ranks : {2, 4}) {
      const TrainingRun spread = train_on_threads(strict(precision), ranks, 4);
      const std::string what = fmt::format("{} ranks", ranks);
      expect_same_run(spread, alone, what);
      for (size_t i = 0; i < alone.steps.size(); ++i)
        EXPECT_EQ(spread.steps[i].losses, alone.steps[i].losses) << what;
    }
  }
}

TEST_F(DistillationParity, AnyLayoutGivesTheSameGradients) {
  train::RunConfig config = student(1);
  const TrainingRun alone = train_on_threads(config, 1, 1);
  const double tolerance = 8 * 256 * 0x1p-24, typical = alone.steps[0].grad_norm / 100;
  const auto compare = [&](const train::RunConfig& other, int ranks, const std::string& what) {
    const TrainingRun run = train_on_threads(other, ranks, 1);
    for (const char* name : {"cross_entropy", "distillation", "balance", "router_z"}) {
      EXPECT_NEAR(run.steps[0].part(name), alone.steps[0].part(name), tolerance) << what << " " << name;
    }
    test::expect_close(run.gradients, alone.gradients, tolerance, typical, what);
  };
  for (const auto& [ranks, ep] : std::vector<std::pair<int, int>>{{2, 1}, {2, 2}, {4, 4}}) {
    compare(student(ep), ranks, fmt::format("{} ranks, ep {}", ranks, ep));
  }
  for (const auto& [ranks, tp] : std::vector<std::pair<int, int>>{{2, 2}, {4, 2}, {4, 4}}) {
    train::RunConfig cut = student(2);
    cut.parallel.tensor = tp;
    compare(cut, ranks, fmt::format("{} ranks, tp {}", ranks, tp));
    cut.parallel.expert_tensor = 2;
    compare(cut, ranks, fmt::format("{} ranks, tp {}, expert-tp 2", ranks, tp));
  }
  config = student(2);
  config.parallel.zero = 1;
  compare(config, 4, "zero 1");
  config.train.recompute = true;
  compare(config, 1, "recomputed");
}

// The teacher's part is no small thing, and what it says depends on it.
TEST_F(DistillationParity, TheTeacherIsHeard) {
  train::RunConfig config = student(1);
  const TrainingRun taught = train_on_threads(config, 1, 1);
  config.distil = {};
  const TrainingRun untaught = train_on_threads(config, 1, 1);
  EXPECT_EQ(untaught.losses(), taught.losses());  // of the next token, before any update
  EXPECT_NE(untaught.grad_norms(), taught.grad_norms());
  EXPECT_GT(taught.steps[0].part("distillation"), 0.1);
  // Validation is of the student alone.
  EXPECT_EQ(train_on_threads(config, 1, 0).validation.loss,
            train_on_threads(student(1), 1, 0).validation.loss);
}

TEST_F(DistillationParity, ResumesToTheSameBitsInEitherStage) {
  for (const int64_t first : {1, 3}) {  // steps before
    train::RunConfig config = student();
    const TrainingRun whole = train_on_threads(config, 2, 4);
    config.output = folder_ / fmt::format("resumed{}", first);
    config.checkpoint.resume = train::Resume::automatic;
    train_on_threads(config, 2, first, [](train::Trainer& trainer) { trainer.save(); });
    const TrainingRun rest = train_on_threads(config, 2, 4 - first);
    ASSERT_EQ(rest.steps.size() + static_cast<size_t>(first), whole.steps.size());
    for (size_t i = 0; i < rest.steps.size(); ++i) {
      const train::StepRecord &got = rest.steps[i], &want = whole.steps[i + static_cast<size_t>(first)];
      EXPECT_EQ(got.losses, want.losses);
      EXPECT_EQ(got.grad_norm, want.grad_norm);
    }
    test::expect_same_bits(rest.weights, whole.weights, "weights");
    test::expect_same_bits(rest.moments, whole.moments, "moments");
  }
}

TEST_F(DistillationParity, ACheckpointNamesTheTeacherAndHoldsNothingOfIt) {
  train::RunConfig config = student();
  config.checkpoint.resume = train::Resume::automatic;
  train_on_threads(config, 1, 1, [](train::Trainer& trainer) { trainer.save(); });
  const CheckpointReader reader(config.output), teacher(config.distil.teacher);
  EXPECT_THAT(reader.manifest().state.at("objective").at("teacher").get<std::string>(),
              HasSubstr("xxh3-128:"));
  EXPECT_LT(reader.names().size(), teacher.names().size());
  train::RunConfig cut = config;
  cut.parallel.tensor = 2;
  EXPECT_EQ(train_on_threads(cut, 2, 1).steps.front().step, 2);  // it knows the teacher by parts of it
  for (const std::string& name : reader.names()) EXPECT_THAT(name, ::testing::Not(HasSubstr("blocks.3")));

  // Another one is refused while it is needed, naming the cure; a copy of the same weights is not.
  train_teacher("other", 6);
  train::RunConfig changed = config;
  changed.distil.teacher = folder_ / "other";
  EXPECT_THAT(error_of(ErrorKind::config, [&] { train_on_threads(changed, 1, 1); }),
              AllOf(HasSubstr("distil.teacher"), HasSubstr("hash"), HasSubstr("name the same teacher")));
  train_teacher("again", 5);
  changed.distil.teacher = folder_ / "again";
  train_on_threads(changed, 2, 2, [](train::Trainer& trainer) { trainer.save(); });
  changed.distil.teacher = folder_ / "nowhere";  // no longer needed
  EXPECT_EQ(train_on_threads(changed, 1, 1).steps.at(0).losses.at(1).second, 0);
}

TEST_F(DistillationParity, WhatDoesNotFitIsRefused) {
  const auto refused = [&](const std::function<void(train::RunConfig&)>& change,
                           ErrorKind kind = ErrorKind::config) {
    train::RunConfig config = student();
    config.output = folder_ / "refused";
    change(config);
    const std::string message = error_of(kind, [&] { train_on_threads(config, 2, 1); });
    EXPECT_FALSE(std::filesystem::exists(config.output + "/metrics.jsonl")) << message;
    return message;
  };
  train_teacher("foreign", 5, 60);
  EXPECT_THAT(
      refused([&](train::RunConfig& c) { c.distil.teacher = folder_ / "foreign"; }),
      AllOf(HasSubstr("distil.teacher"), HasSubstr("vocabulary of 60 tokens, model.vocab_size is 61")));
  EXPECT_THAT(
      refused([&](train::RunConfig& c) { c.distil.teacher = folder_ / "nowhere"; }, ErrorKind::checkpoint),
      HasSubstr("nowhere"));
  EXPECT_THAT(refused([](train::RunConfig& c) { c.precision = train::Precision::fp64; }),
              HasSubstr("without fp64"));
  EXPECT_THAT(refused([](train::RunConfig& c) {
                c.distil.init_layers = {0, 1, 7};
              }),
              HasSubstr("0 to 5, got 7"));
  EXPECT_THAT(refused([](train::RunConfig& c) {
                c.distil.init_layers = {0, 1, 2};
              }),
              AllOf(HasSubstr("blocks.1.moe"), HasSubstr("same kind")));
}

TEST_F(DistillationParity, ATeacherOfAnotherTokenizerIsRefused) {
  const auto shard = [&](const std::string& tokenizer) {
    ShardInfo info;
    info.vocab_size = 61, info.eod_id = 0;
    info.tokenizer = "test", info.tokenizer_sha256 = tokenizer;
    ShardBuilder builder(info);
    std::vector<int32_t> ids(2000);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7 % 61);
    builder.append(ids);
    builder.write(folder_ / (tokenizer + ".h5"));
    return (folder_ / (tokenizer + ".h5")).string();
  };
  train::RunConfig teacher = test::small_dense(folder_ / "reader");
  teacher.data.train = shard("of_the_teacher"), teacher.data.valid = "";
  train_on_threads(teacher, 1, 1, [](train::Trainer& trainer) { trainer.save(); });
  train::RunConfig config = student();
  config.distil.teacher = teacher.output;
  config.data.train = shard("of_the_student"), config.data.valid = "";
  EXPECT_THAT(error_of(ErrorKind::config, [&] { train_on_threads(config, 1, 1); }),
              AllOf(HasSubstr("another tokenizer (of_the_teach"), HasSubstr("of_the_stude"),
                    HasSubstr("tokenize the data with the teacher's")));
  config.data.train = teacher.data.train;
  EXPECT_EQ(train_on_threads(config, 1, 1).steps.size(), 1U);
}

TEST_F(DistillationParity, AStudentMayBeginAsLayersOfItsTeacher) {
  train::RunConfig config = student(2);
  config.distil.init_layers = {2, 3, 4};  // layer 3 has four experts
  config.model.dropout = {};
  const CheckpointReader teacher(config.distil.teacher);
  for (const int ranks : {1, 2}) {
    const TrainingRun run = train_on_threads(config, ranks, 0);
    for (const auto& [of_student, of_teacher] : std::vector<std::pair<std::string, std::string>>{
             {"embed.token.weight", "embed.token.weight"},
             {"blocks.0.mlp.up.weight", "blocks.2.mlp.up.weight"},
             {"blocks.1.moe.router.weight", "blocks.3.moe.router.weight"},
             {"blocks.2.norm1.weight", "blocks.4.norm1.weight"},
             {"final_norm.weight", "final_norm.weight"}}) {
      CheckpointReader reader(config.distil.teacher);
      const Shape shape = reader.tensor(of_teacher).shape;
      std::vector<float> want(static_cast<size_t>(shape.numel()));
      reader.read({of_teacher, shape, rows_of(shape, 0, shape[0]), Tensor(want.data(), DType::f32, shape)});
      const auto width = static_cast<size_t>(shape.numel() / shape[0]);
      for (int64_t row = 0; row < shape[0]; ++row) {
        const std::vector<double>& got = run.weights.at(fmt::format("{}[{}]", of_student, row));
        for (size_t i = 0; i < width; ++i) {
          ASSERT_EQ(got[i], static_cast<double>(want[static_cast<size_t>(row) * width + i])) << of_student;
        }
      }
    }
  }
  // As all of them, in a layout of its own, it computes what the teacher does.
  train::RunConfig whole = test::small_pr_moe(folder_ / "student", 4);
  whole.distil = config.distil;
  whole.distil.init_layers = {0, 1, 2, 3, 4, 5};
  train::RunConfig again = test::small_pr_moe(folder_ / "teacher", 2);
  again.seed = 5, again.optimizer.lr = 3e-2, again.checkpoint.resume = train::Resume::automatic;
  EXPECT_EQ(train_on_threads(whole, 1, 0).validation.loss, train_on_threads(again, 1, 0).validation.loss);
}

TEST_F(DistillationParity, ThePlanIsTheAllocation) {
  train::RunConfig dense = test::small_dense(folder_ / "dense");
  train_on_threads(dense, 1, 1, [](train::Trainer& trainer) { trainer.save(); });
  for (const auto precision : {objective::TeacherPrecision::fp32, objective::TeacherPrecision::bf16}) {
    for (const double temperature : {1.0, 2.0}) {
      train::RunConfig config = test::small_dense(folder_ / "of_dense");
      config.model.blocks = {{1, {{}}}};
      config.distil.teacher = dense.output;
      config.distil.precision = precision;
      config.distil.temperature = temperature;
      const train::MemoryPlan plan = test::plan_on_threads(config, 1);
      train::Executor::Memory real;
      run_on_threads(1, [&](Communicator& world) {
        train::Trainer trainer(config, world);
        trainer.step();
        real = trainer.high_water();
      });
      EXPECT_EQ(plan.activations, real.activations);
      EXPECT_EQ(plan.activation_gradients, real.activation_gradients);
      EXPECT_EQ(plan.workspace, real.workspace);
      const int64_t size = precision == objective::TeacherPrecision::bf16 ? 2 : 4;
      const int64_t parameters = model::count(dense.model, 16).parameters;
      EXPECT_GE(plan.teacher, size * parameters);
      EXPECT_LE(plan.teacher, 4 * parameters + 64 * 1024);
    }
  }
}

TEST_F(DistillationParity, AMicroBatchAllocatesNothing) {
  const auto allocations = [&](int64_t micro_batches) {
    train::RunConfig config = student(1);
    config.batch.global_batch = micro_batches * config.batch.micro_batch;
    config.distil.weight.until = 0;
    int64_t result = 0;
    run_on_threads(1, [&](Communicator& world) {
      train::Trainer trainer(config, world);
      trainer.step();
      trainer.step();
      const int64_t before = test::allocation_count();
      trainer.step();
      result = test::allocation_count() - before;
    });
    return result;
  };
  EXPECT_EQ(allocations(2), allocations(6));
}

}  // namespace
}  // namespace ziggurat
