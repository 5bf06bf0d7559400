// A validation evaluates the sequences that were asked for, whatever the micro-batch and the ranks.
#include <gtest/gtest.h>

#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"

namespace ziggurat {
namespace {

using ziggurat::testing::TempDir;

train::Validation validate(const train::RunConfig& config, int ranks) {
  return test::train_on_threads(config, ranks, 0).validation;
}

TEST(Evaluation, TakesExactlyTheSequencesAskedFor) {
  const TempDir folder;
  for (train::RunConfig config : {test::small_dense(folder.path()), test::small_pr_moe(folder.path())}) {
    config.batch.global_batch = 32;
    for (const int64_t sequences : {1, 5, 33}) {
      config.eval.sequences = sequences;
      config.batch.micro_batch = 1;
      const train::Validation one_by_one = validate(config, 1);
      EXPECT_EQ(one_by_one.sequences, sequences);
      EXPECT_EQ(one_by_one.tokens, sequences * config.batch.sequence_length);
      for (const int64_t micro_batch : {2, 4, 8}) {
        config.batch.micro_batch = micro_batch;
        for (const int ranks : {1, 2, 4}) {
          const train::Validation got = validate(config, ranks);
          EXPECT_EQ(got.sequences, sequences) << micro_batch << " on " << ranks;
          EXPECT_EQ(got.tokens, one_by_one.tokens) << micro_batch << " on " << ranks;
          // Sums of other products: a few roundings of fp32 in each token's logits.
          EXPECT_NEAR(got.loss, one_by_one.loss, 1e-6 * one_by_one.loss) << micro_batch << " on " << ranks;
        }
      }
    }
  }
}

TEST(Evaluation, OfAShortSplitTakesAllOfIt) {
  const TempDir folder;
  train::RunConfig config = test::small_dense(folder.path());
  config.model.vocab_size = 600;
  ShardInfo info;
  info.vocab_size = 600;
  ShardBuilder builder(info);
  std::vector<int32_t> ids(7 * 16 + 1 + 15);  // seven samples, not eight
  std::iota(ids.begin(), ids.end(), 0);
  builder.append(ids);
  builder.write(folder / "valid.h5");
  config.data.valid = folder / "valid.h5";
  config.eval.sequences = 640;
  for (const int64_t micro_batch : {1, 2, 8}) {
    config.batch.micro_batch = micro_batch;
    for (const int ranks : {1, 2}) {
      const train::Validation got = validate(config, ranks);
      EXPECT_EQ(got.sequences, 7);
      EXPECT_EQ(got.tokens, 7 * 16);
    }
  }
}

// Partial micro-batches need no more than whole ones: the plan holds.
TEST(Evaluation, APartialMicroBatchTakesNoMemoryOfItsOwn) {
  const TempDir folder;
  train::RunConfig config = test::small_dense(folder.path());
  config.batch.micro_batch = 4;
  config.eval.sequences = 7;
  const train::MemoryPlan plan = test::plan_on_threads(config, 1);
  test::train_on_threads(config, 1, 1, [&](train::Trainer& trainer) {
    EXPECT_EQ(plan.activations, trainer.high_water().activations);
    EXPECT_EQ(plan.workspace, trainer.high_water().workspace);
  });
}

}  // namespace
}  // namespace ziggurat
