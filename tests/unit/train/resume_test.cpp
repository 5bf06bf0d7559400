// What a run may go on from, what it leaves alone, and what it never writes.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/comm/thread.h>
#include <ziggurat/train/finite.h>

namespace ziggurat::train {
namespace {

namespace fs = std::filesystem;
using test::small_pr_moe;
using test::train_on_threads;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ziggurat::testing::error_of;
using ziggurat::testing::read_text;
using ziggurat::testing::TempDir;
using ziggurat::testing::write_text;

class ResumeTest : public ::testing::Test {
 protected:
  ResumeTest() : config_(small_pr_moe(folder_ / "run")) { config_.checkpoint.resume = Resume::automatic; }

  // Trains `steps` steps, saving after each; returns the step it began after.
  int64_t train(int64_t steps, const RunConfig& config, int ranks = 1) const {
    int64_t begun = -1;
    run_on_threads(ranks, [&](Communicator& world) {
      Trainer trainer(config, world);
      if (world.rank() == 0) begun = trainer.steps_done();
      for (int64_t i = 0; i < steps; ++i) trainer.step(), trainer.save();
    });
    return begun;
  }
  std::string refused(ErrorKind kind, const RunConfig& config, int ranks = 1) const {
    const std::string before = everything();
    const std::string message = error_of(kind, [&] { train(1, config, ranks); });
    EXPECT_EQ(everything(), before) << "a refused start changed the folder";
    return message;
  }
  fs::path run() const { return folder_ / "run"; }
  std::string checkpoint(int64_t step) const { return run() / fmt::format("checkpoints/step_{:08d}", step); }
  std::vector<std::string> names(const fs::path& folder) const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string name = entry.path().filename();
      found.push_back(name.starts_with("events.out.tfevents.") ? "events" : name);  // and time and host
    }
    std::sort(found.begin(), found.end());
    return found;
  }
  std::string everything() const {
    std::vector<std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(run())) {
      files.push_back(entry.path().string() +
                      (entry.is_regular_file() ? ": " + read_text(entry.path()) : ""));
    }
    std::sort(files.begin(), files.end());
    return fmt::format("{}", fmt::join(files, "\n"));
  }
  void damage(int64_t step) const {
    std::ofstream(checkpoint(step) + "/manifest.json", std::ios::app) << "x";
  }

  // A whole checkpoint, hashes and all, whose first weight is `value`.
  void spoil(int64_t step, float value) const {
    const auto comm = make_self_communicator();
    const std::string path = checkpoint(step), changed = folder_ / "changed";
    {
      CheckpointReader reader(path);
      std::vector<std::vector<float>> memory;
      std::vector<TensorSlice> slices;
      for (const std::string& name : reader.names()) {
        const Shape shape = reader.tensor(name).shape;
        memory.emplace_back(static_cast<size_t>(shape.numel()));
        slices.push_back(
            {name, shape, rows_of(shape, 0, shape[0]), Tensor(memory.back().data(), DType::f32, shape)});
        reader.read(slices.back());
        if (name == "final_norm.weight") memory.back()[0] = value;
      }
      Lineage lineage{lineage_of(reader.manifest()), {}};
      CheckpointInfo info;
      info.step = step, info.state = reader.manifest().state, info.config = reader.manifest().config;
      info.lineage = &lineage;
      save_checkpoint(changed, info, slices, *comm);
    }
    fs::remove_all(path);
    fs::rename(changed + "/" + fs::path(path).filename().string(), path);
  }

  TempDir folder_;
  RunConfig config_;
};

TEST_F(ResumeTest, ANewRunSetsTheEarlierOneAside) {
  config_.checkpoint.keep = 0;
  EXPECT_EQ(train(2, config_), 0);
  const std::string metrics = read_text(run() / "metrics.jsonl");
  RunConfig anew = config_;
  anew.checkpoint.resume = Resume::never;
  EXPECT_EQ(train(1, anew), 0);
  EXPECT_EQ(read_text(run() / "earlier_1/metrics.jsonl"), metrics);
  EXPECT_THAT(names(run() / "earlier_1/checkpoints"), ElementsAre("step_00000001", "step_00000002"));
  EXPECT_THAT(names(run() / "checkpoints"), ElementsAre("step_00000001"));
  EXPECT_EQ(train(1, config_), 1) << "auto goes on with the new run";
  EXPECT_EQ(train(0, anew), 0);
  EXPECT_THAT(names(run()),
              ElementsAre("checkpoints", "config.yaml", "earlier_1", "earlier_2", "events", "metrics.jsonl"));
  EXPECT_EQ(train(1, config_), 0) << "the newest run had no checkpoint yet";
}

TEST_F(ResumeTest, DamagedCheckpointsAreSteppedOverAndKept) {
  config_.checkpoint.keep = 0;
  train(3, config_);
  damage(3);
  EXPECT_EQ(train(2, config_, 2), 2);
  EXPECT_THAT(names(run() / "checkpoints"), ElementsAre("step_00000001", "step_00000002", "step_00000003",
                                                        "step_00000003.aside_1", "step_00000004"));
}

TEST_F(ResumeTest, WithoutAUsableCheckpointNothingBegins) {
  train(2, config_);
  damage(1), damage(2);
  for (const int ranks : {1, 2}) {
    EXPECT_THAT(
        refused(ErrorKind::checkpoint, config_, ranks),
        AllOf(HasSubstr(checkpoint(1)), HasSubstr(checkpoint(2)), HasSubstr("checkpoint.resume=never")));
  }
  config_.checkpoint.resume = Resume::never;
  EXPECT_EQ(train(1, config_), 0);
}

TEST_F(ResumeTest, WeightsThatAreNoNumbersAreSteppedOver) {
  config_.checkpoint.keep = 0;
  train(3, config_);
  spoil(3, NAN);
  spoil(2, 3e38f);  // finite, but no loss is
  EXPECT_EQ(train(1, config_, 2), 1);
  EXPECT_THAT(names(run() / "checkpoints"), ElementsAre("step_00000001", "step_00000002",
                                                        "step_00000002.aside_1", "step_00000003.aside_1"));
  fs::remove_all(checkpoint(2));
  spoil(1, INFINITY);
  EXPECT_THAT(refused(ErrorKind::checkpoint, config_), HasSubstr("final_norm.weight, weight, element 0"));
}

TEST_F(ResumeTest, WeightsThatAreNoNumbersAreNotSaved) {
  train(1, config_);
  for (const float value : {NAN, -INFINITY, 3e38f}) {
    const std::string message = error_of(ErrorKind::numeric, [&] {
      run_on_threads(2, [&](Communicator& world) {
        Trainer trainer(config_, world);
        trainer.step();
        trainer.params().find("final_norm.weight").param.value.data<float>()[3] = value;
        trainer.save();
      });
    });
    EXPECT_THAT(message,
                AllOf(HasSubstr("step 2"), HasSubstr(std::isfinite(value) ? "the loss" : "final_norm")));
  }
  EXPECT_THAT(names(run() / "checkpoints"), ElementsAre("step_00000001"));
}

TEST_F(ResumeTest, MomentsCountToo) {
  run_on_threads(2, [&](Communicator& world) {
    Trainer trainer(config_, world);
    const OptimizerState& state = trainer.optimizer_state();
    EXPECT_EQ(first_not_finite(state, world), "");
    const nn::ParamEntry& norm = state.store().find("final_norm.weight");
    if (world.rank() == 1) state.moment(norm, 1).data<float>()[5] = INFINITY;
    EXPECT_EQ(first_not_finite(state, world), "final_norm.weight, moment adam.v, element 5 on rank 1");
  });
}

TEST_F(ResumeTest, AnotherModelIsRefusedWithTheList) {
  train(1, config_);
  const auto other = [&](auto change) {
    RunConfig c = config_;
    change(c);
    return refused(ErrorKind::config, c);
  };
  const std::string flag = "checkpoint.allow_model_changes=true";
  EXPECT_THAT(other([](RunConfig& c) { c.model.hidden = 64; }),
              AllOf(HasSubstr("model.hidden: 32 -> 64"), HasSubstr(flag)));
  EXPECT_THAT(other([](RunConfig& c) { c.model.moe.top_k = 2; }), HasSubstr("model.moe.top_k: 1 -> 2"));
  EXPECT_THAT(other([](RunConfig& c) { c.model.blocks.pop_back(); }),
              AllOf(HasSubstr("(absent)"), HasSubstr("tensors that the model does not use: blocks.4.")));
  EXPECT_THAT(other([](RunConfig& c) { c.model.bias = false; }), HasSubstr("model.bias: true -> false"));
}

TEST_F(ResumeTest, AllowedModelChangesMayLeaveTensorsUnused) {
  train(1, config_);
  RunConfig other = config_;
  other.checkpoint.allow_model_changes = true;
  other.model.blocks.pop_back();
  EXPECT_EQ(train(0, other), 1);
  other = config_;
  other.checkpoint.allow_model_changes = true;
  other.model.blocks.push_back(other.model.blocks.back());
  EXPECT_THAT(refused(ErrorKind::checkpoint, other), HasSubstr("needs tensors that it does not hold"));
}

// An average of the weights is no part of the training: it may begin and end with any step, and goes on
// exactly.
TEST_F(ResumeTest, AnAverageBeginsInTheMiddleOfARun) {
  config_.checkpoint.keep = 0;
  const auto averages_of = [](const std::string& path) {
    std::map<std::string, std::vector<float>> all;
    CheckpointReader reader(path);
    for (const std::string& name : reader.names()) {
      const Shape shape = reader.tensor(name).shape;
      std::vector<float>& values = all[name];
      values.resize(static_cast<size_t>(shape.numel()));
      reader.read({name, shape, rows_of(shape, 0, shape[0]), Tensor(values.data(), DType::f32, shape)});
    }
    return all;
  };
  train(2, config_);
  const auto begun = averages_of(checkpoint(2));
  RunConfig averaging = config_;
  averaging.optimizer.average = 0.75;
  EXPECT_EQ(train(2, averaging, 2), 2);  // in one start
  const auto whole = averages_of(checkpoint(4)), third = averages_of(checkpoint(3));
  const std::string name = "final_norm.weight";
  const std::vector<float>&w2 = begun.at(name), &w3 = third.at(name), &average = third.at("ema.w." + name);
  // The third update: a decay of min(0.75, 1 - 1/3).
  for (size_t i = 0; i < average.size(); ++i) {
    EXPECT_FLOAT_EQ(average[i], w2[i] + static_cast<float>(1 / 3.0) * (w3[i] - w2[i])) << i;
  }
  fs::remove_all(checkpoint(4));
  EXPECT_EQ(train(1, averaging, 2), 3);  // in two
  EXPECT_EQ(averages_of(checkpoint(4)), whole);
  EXPECT_EQ(train(1, config_), 4);  // and gone
  for (const auto& [tensor, values] : averages_of(checkpoint(5))) EXPECT_FALSE(tensor.starts_with("ema.w."));
}

// The stable part of wsd ends at whichever checkpoint somebody decays from.
TEST_F(ResumeTest, WsdDecaysFromAnyCheckpoint) {
  constexpr int64_t kStep = 16 * 16;  // tokens
  config_.checkpoint.keep = 0;
  config_.optimizer.schedule = LrScheduleKind::wsd;
  config_.optimizer.wsd_decay_tokens = 4 * kStep;
  train(3, config_);
  RunConfig decaying = config_;
  decaying.optimizer.decay_tokens = 6 * kStep;
  EXPECT_THAT(
      refused(ErrorKind::config, decaying),
      AllOf(HasSubstr("optimizer.decay_tokens"), HasSubstr("checkpoint.allow_schedule_changes=true")));
  decaying.checkpoint.allow_schedule_changes = true;
  for (const int64_t from : {3, 2}) {
    std::vector<double> rates;
    run_on_threads(1, [&](Communicator& world) {
      Trainer trainer(decaying, world);
      EXPECT_EQ(trainer.steps_done(), from);
      for (int64_t step = from; step < 7; ++step) rates.push_back(trainer.step().lr);
    });
    std::vector<double> want;
    for (int64_t step = from; step < 7; ++step) {
      const double left = std::clamp<double>(static_cast<double>(6 - step) / 4, 0, 1);
      want.push_back(1e-3 + 9e-3 * left);
    }
    EXPECT_THAT(rates, ::testing::Pointwise(::testing::DoubleNear(1e-15), want));
    fs::remove_all(checkpoint(3));
  }
}

TEST_F(ResumeTest, AnotherBatchTrainsToTheSameGoal) {
  config_.train.tokens = 16 * config_.batch.sequence_length * 10;
  config_.eval.sequences = 0;
  const auto run_to_end = [&] {
    int64_t samples = 0;
    run_on_threads(1, [&](Communicator& world) {
      Trainer trainer(config_, world);
      trainer.run();
      samples = trainer.consumed_samples();
    });
    return samples;
  };
  EXPECT_EQ(run_to_end(), 160);
  const std::string finished = read_text(run() / "metrics.jsonl");
  EXPECT_EQ(run_to_end(), 160);
  EXPECT_EQ(read_text(run() / "metrics.jsonl"), finished) << "a finished run tells nothing twice";
  config_.batch.global_batch = 64;
  config_.train.tokens = 16 * config_.batch.sequence_length * 15;
  EXPECT_THAT(
      error_of(ErrorKind::config, [&] { run_to_end(); }),
      AllOf(HasSubstr("batch.global_batch: 16 -> 64"), HasSubstr("checkpoint.allow_schedule_changes=true")));
  config_.checkpoint.allow_schedule_changes = true;
  EXPECT_EQ(run_to_end(), 160 + 2 * 64);
  EXPECT_THAT(read_text(run() / "metrics.jsonl"), HasSubstr("\"step\":12,\"total_steps\":12"));
}

TEST_F(ResumeTest, TwoRunsInOneFolderAreRefused) {
  const auto first = make_self_communicator();
  const Trainer trainer(config_, *first);
  EXPECT_THAT(
      error_of(ErrorKind::config, [&] { train(1, config_, 2); }),
      AllOf(HasSubstr("output: "), HasSubstr("another job that is alive"), Not(HasSubstr("checkpoint"))));
}

TEST_F(ResumeTest, ARemovedFolderIsMadeAgain) {
  run_on_threads(2, [&](Communicator& world) {
    Trainer trainer(config_, world);
    trainer.step();
    world.barrier();
    if (world.rank() == 0) fs::remove_all(run());
    world.barrier();
    trainer.step();
    trainer.save();
  });
  EXPECT_THAT(names(run()), ElementsAre("checkpoints", "config.yaml", "events", "metrics.jsonl"));
  EXPECT_EQ(train(0, config_), 2);
}

TEST_F(ResumeTest, AFolderThatAnotherJobTookEndsTheRun) {
  const auto comm = make_self_communicator();
  Trainer trainer(config_, *comm);
  fs::remove_all(run());
  fs::create_directories(run());
  const FolderLock other(run());
  EXPECT_THAT(error_of(ErrorKind::config, [&] { trainer.step(); }), HasSubstr("taken by another job"));
}

}  // namespace
}  // namespace ziggurat::train
