// Training from tokens that the test gives: the step of train::Trainer on any communicator, without config
// files, data and checkpoints.
#pragma once

#include <span>
#include <vector>

#include <ziggurat/train/train_step.h>

namespace ziggurat::test {

struct TinyRunOptions {
  model::ModelConfig model;   // expert_parallel of its layers is fitted to the ranks, as in a run
  OptimizerConfig optimizer;  // the learning rate is optimizer.lr throughout
  DType compute = DType::f32;
  Reproducible reproducible = Reproducible::layout;
  bool recompute = false;
  uint64_t seed = 1;
  int64_t micro_batches = 1;          // of a step, over all ranks, which take equal shares
  int64_t lanes = 0;                  // strict mode: of a step, over all ranks; 0: as a run has
  int64_t sequences = 1, length = 0;  // of a micro-batch
  int32_t eod = -1;                   // the token that ends a document, after which there begin anew:
  bool reset_positions = false, reset_attention = false;
  std::vector<int32_t> prefixes = {};  // of each sequence of a micro-batch: tokens that see all of each other
  objective::ObjectiveConfig objective = {};
  int64_t samples_per_step() const { return micro_batches * sequences; }
};

struct TinyStep {
  double cross_entropy = 0;  // mean over the step's tokens, nats
  double auxiliary = 0;      // mean over the step's micro-batches, with the coefficients
  double grad_norm = 0;      // before clipping
  int64_t dropped = 0;       // choices, over all ranks and layers
  double total() const { return cross_entropy + auxiliary; }
};

class TinyRun {
 public:
  TinyRun(const TinyRunOptions& options, Communicator& world);

  // One optimizer step. `samples` [micro_batches, sequences, length + 1] are the whole step's, the same on
  // every rank. Afterwards Param::grad holds the step's gradient, before clipping. Collective.
  TinyStep step(std::span<const int32_t> samples);

  // Logits [sequences * length, padded vocab] of one micro-batch of `samples`, routed as in training; changes
  // no weights. moe_stats() then tell of this micro-batch alone. Collective.
  std::vector<double> logits(std::span<const int32_t> samples, int64_t micro_batch);

  nn::ParamStore& params() { return training_.store; }
  OptimizerState& optimizer_state() { return training_.optimizer.state(); }
  std::vector<moe::MoeStats*> moe_stats() const { return training_.model.moe_stats(); }
  std::vector<moe::MoeSums> moe_sums();  // what they tell, in order

 private:
  model::TokenBatch batch(std::span<const int32_t> samples, int64_t micro_batch);

  TinyRunOptions options_;
  train::RunConfig config_;
  train::Training training_;
  train::Executor executor_;
  train::TrainStep step_;
  std::vector<int32_t> tokens_, targets_, positions_, first_keys_, last_keys_;  // of one micro-batch
};

}  // namespace ziggurat::test
