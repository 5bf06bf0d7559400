// What a model under training predicts of data that it does not learn from.
#pragma once

#include <cstdint>

#include <ziggurat/train/executor.h>
#include <ziggurat/train/run_data.h>
#include <ziggurat/train/training.h>

namespace ziggurat::train {

struct Validation {
  double loss = 0;        // cross-entropy per counted token, nats
  double accuracy = 0;    // share of counted tokens whose arg-max is right
  int64_t tokens = 0;     // counted
  int64_t sequences = 0;  // evaluated
};

class Evaluation {
 public:
  // All three must outlive it.
  Evaluation(const RunConfig& config, Training& training, Executor& executor)
      : config_(config), training_(training), executor_(executor), batches_(config) {}
  // Bytes of Executor::numbers that evaluating the splits takes.
  static int64_t bytes_of_numbers(const RunConfig& config, const RunData& data);

  // Of eval.sequences of the split, or of all that it has. Empty where that is none. Collective.
  Validation of(const SampleSource* source, Split split);

  // The loss of one sequence of each rank, as training waits for it before a save: finite? Collective: the
  // same answer on every rank.
  bool computes_finite_loss(const SampleSource& source);

 private:
  const RunConfig& config_;
  Training& training_;
  Executor& executor_;
  BatchReader batches_;
};

}  // namespace ziggurat::train
