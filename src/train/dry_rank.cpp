#include "train/dry_rank.h"

#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {

DryRank::DryRank(const RunConfig& c, int world_size, int rank)
    : config(c),
      training(c, ProcessGroups::planned(layout_of(c, world_size), rank), meta_of(c.device)),
      executor(c, meta_of(c.device), {Arena::kUnlimited, Arena::kUnlimited, Arena::kUnlimited}, 0) {
  executor.stream.set_weight_rows(tokens_of_rank(c, training.groups.dp().size()));
}

model::TokenBatch DryRank::batch() const {
  static constexpr int32_t kSome = 0;  // tables that are there, which nobody reads
  return {&kSome,
          &kSome,
          config.batch.micro_batch,
          config.batch.sequence_length,
          config.data.reset_positions ? &kSome : nullptr,
          config.data.reset_attention ? &kSome : nullptr,
          config.data.ul2.enabled() && config.data.ul2.bidirectional ? &kSome : nullptr};
}

void DryRank::micro_batch(parallel::GradientReducer& reducer) {
  Tape& tape = executor.tape;
  training.objective->begin_step(0, executor.stream);
  tape.set_follower(&reducer);
  reducer.begin_micro_batch(executor.stream, false);
  tape.begin({});
  training.objective->loss(tape, executor.upload(tape, batch()));
  tape.backward();
  reducer.end_micro_batch();
  tape.set_follower(nullptr);
}

void DryRank::update() {
  Arena norms("norms", Arena::kUnlimited, executor.stream.device());
  const Tensor squared_norms = allocate(norms, DType::f64, {1 + std::ssize(config.optimizer.clip_groups), 1});
  training.optimizer.update(config.optimizer.lr, squared_norms, {}, executor.workspace, executor.stream);
}

void DryRank::evaluation() {
  executor.tape.begin({.training = false});
  training.objective->evaluate(executor.tape, executor.upload(executor.tape, batch()));
}

}  // namespace ziggurat::train
