// Training from tokens that the test gives: the step of train::Trainer on any communicator, without config
// files, data and checkpoints.
#pragma once

#include <span>
#include <vector>

#include <ziggurat/model/gpt.h>
#include <ziggurat/optim/optimizer.h>
#include <ziggurat/parallel/gradient_reducer.h>

namespace ziggurat::test {

struct TinyRunOptions {
  model::ModelConfig model;   // expert_parallel of its layers is fitted to the ranks, as in a run
  OptimizerConfig optimizer;  // the learning rate is optimizer.lr throughout
  DType compute = DType::f32;
  Reproducible reproducible = Reproducible::layout;
  bool recompute = false;
  uint64_t seed = 1;
  int64_t micro_batches = 1;          // of a step, over all ranks, which take equal shares
  int64_t lanes = 1;                  // strict mode: of a step, over all ranks
  int64_t sequences = 1, length = 0;  // of a micro-batch
  int32_t eod = -1;                   // the token that ends a document, after which there begin anew:
  bool reset_positions = false, reset_attention = false;
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

  nn::ParamStore& params() { return store_; }
  std::vector<moe::MoeStats*> moe_stats() const { return model_.moe_stats(); }

 private:
  model::TokenBatch begin(std::span<const int32_t> samples, int64_t micro_batch);
  void reset_stats();

  TinyRunOptions options_;
  Communicator& world_;
  ProcessGroups groups_;
  int64_t lanes_per_rank_;
  nn::ParamStore store_;
  model::Gpt model_;
  parallel::GradientReducer reducer_;
  Optimizer optimizer_;
  Arena activations_, gradients_, workspace_;
  Stream stream_;
  Tape tape_;
  std::vector<int32_t> tokens_, targets_, positions_, first_keys_;  // of one micro-batch
  int64_t step_ = 0;
};

}  // namespace ziggurat::test
