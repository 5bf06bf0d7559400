// With targets that do not count, losses and gradients are sums over the counted ones, of all micro-batches
// and ranks, divided by how many there are.
#include <gtest/gtest.h>

#include "tests/support/op_test.h"
#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/communicator.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/objective/next_token.h>

namespace ziggurat {
namespace {

using test::expect_same_run;
using test::train_on_threads;
using test::TrainingRun;
using ziggurat::testing::error_of;
using ziggurat::testing::TempDir;
using ziggurat::testing::write_documents;

class MaskedLoss : public ::testing::Test {
 protected:
  void SetUp() override {
    write_documents(folder_ / "half.h5", [](int64_t) { return 2; });
    // Many ends at first, few later: micro-batches of a step count very different numbers of tokens.
    write_documents(folder_ / "uneven.h5",
                    [](int64_t document) { return document < 50 ? 1 : 2 + document / 10; });
    write_documents(folder_ / "ends.h5", [](int64_t) { return 1; });
  }

  train::RunConfig config(const std::string& file, bool dense) const {
    train::RunConfig c = dense ? test::small_dense(folder_.path()) : test::small_pr_moe(folder_.path());
    c.data.train = c.data.valid = folder_ / file;
    c.data.shuffle = false;
    c.data.mask_eod_loss = true;
    return c;
  }
  TempDir folder_;
};

TEST_F(MaskedLoss, OfTrainingIsThatOfValidationOnTheSameSamples) {
  for (const bool dense : {true, false}) {
    train::RunConfig c = config("half.h5", dense);
    c.precision = train::Precision::fp64;
    c.model.dropout = {};
    c.model.moe.drop = moe::DropPolicy::none;
    c.optimizer.lr = c.optimizer.min_lr = 1e-12;
    c.eval.sequences = c.batch.global_batch;
    const TrainingRun run = train_on_threads(c, 2, 1);
    EXPECT_EQ(run.validation.tokens, c.batch.global_batch * c.batch.sequence_length / 2);
    // Between them lies an update that moves every weight by 1e-12.
    EXPECT_NEAR(run.steps[0].loss, run.validation.loss, 1e-7);
    EXPECT_NEAR(run.steps[0].loss, std::log(61.0), 1.0);
  }
}

// What a step must give, from the model alone: micro-batch by micro-batch, scaled by one count.
TEST_F(MaskedLoss, AndItsGradientsAreThoseOfAReference) {
  for (const bool dense : {true, false}) {
    train::RunConfig c = config("uneven.h5", dense);
    c.precision = train::Precision::fp64;
    c.model.moe.balance_coefficient = 0.5, c.model.moe.z_coefficient = 0.1;
    const TrainingRun run = train_on_threads(c, 1, 1);

    const int64_t length = c.batch.sequence_length,
                  micro_batches = c.batch.global_batch / c.batch.micro_batch;
    const auto source = open_samples(c.data, Split::train, length, 61, c.batch.global_batch);
    std::vector<int32_t> tokens(static_cast<size_t>(c.batch.global_batch * length)), targets(tokens.size());
    source->load(0, c.batch.global_batch, tokens.data(), targets.data());
    double counted = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      EXPECT_EQ(targets[i] == -1, tokens[i] == 0);
      counted += tokens[i] != 0 ? 1 : 0;
    }
    ASSERT_LT(counted, 0.9 * static_cast<double>(tokens.size()));

    const auto self = make_self_communicator();
    const model::ModelConfig m = model::fit_to_ranks(c.model, 1);
    const ProcessGroups groups(*self, ParallelPlan(1, m.expert_parallel_sizes()));
    nn::ParamStore store({.compute = DType::f64, .seed = static_cast<uint64_t>(c.seed)});
    const model::Gpt gpt(m, store, groups);
    objective::NextToken next_token(gpt);
    store.finalize();
    Arena activations("a", 1 << 28), gradients("g", 1 << 28), workspace("w", 1 << 28);
    Stream stream;
    Tape tape(activations, gradients, workspace, stream);
    double loss = 0;
    for (int64_t i = 0; i < micro_batches; ++i) {
      tape.begin({.seed = static_cast<uint64_t>(c.seed),
                  .index = i,
                  .count = micro_batches,
                  .first = i == 0,
                  .token_weight = 1 / counted});
      const int64_t first = i * c.batch.micro_batch * length;
      const model::TokenBatch batch{tokens.data() + first, targets.data() + first, c.batch.micro_batch,
                                    length};
      loss += test::to_doubles(next_token.loss(tape, batch)).front();
      tape.backward();
    }
    store.settle_gradients(stream);
    EXPECT_NEAR(run.steps[0].loss, loss / counted, 1e-12);
    test::ByName want;
    for (const nn::ParamEntry& entry : store.entries()) {
      for (int64_t row = 0; row < entry.param.grad.dim(0); ++row) {
        want[fmt::format("{}[{}]", entry.spec.name, row)] =
            test::to_doubles(entry.param.grad.rows(row, row + 1));
      }
    }
    test::expect_close(run.gradients, want, 1e-9, 1e-6, dense ? "dense" : "PR-MoE");
  }
}

TEST_F(MaskedLoss, HasTheSameBitsOnAnyNumberOfRanksInStrictMode) {
  for (const bool dense : {true, false}) {
    train::RunConfig c = config("uneven.h5", dense);
    c.reproducible = Reproducible::strict;
    const TrainingRun alone = train_on_threads(c, 1, 3);
    for (const int ranks : {2, 4}) {
      expect_same_run(train_on_threads(c, ranks, 3), alone, fmt::format("{} ranks", ranks));
    }
  }
}

TEST_F(MaskedLoss, DoesNotDependOnTheMicroBatchOfADenseModel) {
  train::RunConfig c = config("uneven.h5", true);
  c.precision = train::Precision::fp64;
  c.model.dropout = {};
  const TrainingRun small = train_on_threads(c, 1, 2);
  for (const int64_t micro_batch : {1, 8, 16}) {
    c.batch.micro_batch = micro_batch;
    const TrainingRun other = train_on_threads(c, 1, 2);
    for (size_t s = 0; s < 2; ++s) EXPECT_NEAR(other.steps[s].loss, small.steps[s].loss, 1e-9);
    test::expect_close(other.gradients, small.gradients, 1e-6, 1e-6,
                       fmt::format("{} sequences", micro_batch));
  }
}

TEST_F(MaskedLoss, OfNothingIsRefused) {
  train::RunConfig c = config("ends.h5", true);
  EXPECT_NE(
      error_of(ErrorKind::data, [&] { train_on_threads(c, 2, 1); }).find("step 1: with data.mask_eod_loss"),
      std::string::npos);
  EXPECT_NE(error_of(ErrorKind::data, [&] { train_on_threads(c, 2, 0); }).find("data.valid: with"),
            std::string::npos);
}

}  // namespace
}  // namespace ziggurat
