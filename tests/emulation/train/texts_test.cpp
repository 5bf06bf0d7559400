// Texts that a run on the emulated device scores and writes beside its steps: the CPU's.
#include <fstream>

#include "apps/prompt_sampler.h"
#include "apps/task_evaluator.h"
#include "tests/emulation/device_memory.h"
#include "tests/emulation/emulated_test.h"
#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/train/loaded_model.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::emulation {
namespace {

struct Texts {
  std::vector<std::string> samples;
  std::vector<double> scores;
};

class EmulatedTexts : public EmulatedTest {
 protected:
  train::RunConfig config() const {
    train::RunConfig c = test::small_pr_moe(folder.path(), 2);
    c.model.blocks.resize(1);
    c.model.vocab_size = 260;
    c.model.init_std = 0.3;  // far from ties
    c.data.tokenizer = "bytes";
    c.batch.global_batch = 4;
    c.train.tokens = 2 * c.batch.global_batch * c.batch.sequence_length;
    c.eval.sequences = 2, c.eval.every = 0;
    c.eval.prompts = folder / "prompts.txt";
    c.eval.tasks = {folder / "chosen.jsonl", folder / "written.jsonl"};
    c.eval.samples_every = c.eval.tasks_every = 0;  // at the end
    std::ofstream(c.eval.prompts) << "To be\n";
    std::ofstream(c.eval.tasks[0]) << R"({"context": "Is it", "continuation": [" so", " not"], "gold": 0})"
                                   << "\n"
                                   << R"({"context": "Is it", "continuation": [" one", " of"], "gold": 1})"
                                   << "\n";
    std::ofstream(c.eval.tasks[1]) << R"({"context": "What", "until": ["\n"], "answers": ["x"]})"
                                   << "\n";
    return c;
  }

  // As rank 0 has them.
  static Texts run(train::RunConfig c, int ranks, Device device) {
    c.device = device;
    c.output += fmt::format("/{}_{}", to_string(device), ranks);
    Texts texts;
    run_on_threads(ranks, [&](Communicator& world) {
      apps::TaskEvaluator evaluator(c, world);
      apps::PromptSampler sampler(c);
      train::Trainer trainer(c, world);
      if (device == Device::cuda) expect_planned(c, ranks, evaluator, sampler, trainer.model());
      trainer.set_evaluator([&](const model::Gpt& model) {
        const auto scores = evaluator(model);
        for (const train::NamedScore& score : scores) {
          if (world.rank() == 0) texts.scores.push_back(score.value);
        }
        return scores;
      });
      trainer.set_sampler([&](const model::Gpt& model) {
        const auto samples = sampler(model);
        for (const train::Sample& sample : samples) {
          if (world.rank() == 0) texts.samples.push_back(sample.text);
        }
        return samples;
      });
      trainer.run();
    });
    return texts;
  }
  // What a plan counts on a device without memory is what a run tries, and gives back.
  static void expect_planned(const train::RunConfig& c, int ranks, const apps::TaskEvaluator& evaluator,
                             const apps::PromptSampler& sampler, const model::Gpt& model) {
    const train::LoadedModel dry(c, ProcessGroups::planned(train::layout_of(c, ranks), 0),
                                 {.device = meta_of(c.device), .reproducible = c.reproducible});
    const int64_t live = live_bytes();
    EXPECT_GT(sampler.device_bytes(model), 0);
    EXPECT_EQ(sampler.device_bytes(dry.model()), sampler.device_bytes(model));
    EXPECT_EQ(evaluator.device_bytes(dry.model()), evaluator.device_bytes(model));
    if (ranks == 1) {
      EXPECT_EQ(live_bytes(), live);
    }
  }
  static int64_t live_bytes() { return static_cast<int64_t>(DeviceMemory::instance().live_bytes()); }

  ziggurat::testing::TempDir folder;
};

TEST_F(EmulatedTexts, AreWrittenAndScoredWhileTheModelTrains) {
  for (const int ranks : {1, 2}) {  // two: each with half of the experts
    const Texts want = run(config(), ranks, Device::cpu), got = run(config(), ranks, Device::cuda);
    ASSERT_EQ(want.samples.size(), 1u);
    ASSERT_FALSE(want.scores.empty());
    EXPECT_EQ(got.samples, want.samples) << ranks << " ranks";
    EXPECT_EQ(got.scores, want.scores) << ranks << " ranks";
  }
}

}  // namespace
}  // namespace ziggurat::emulation
