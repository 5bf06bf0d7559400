// The usual one: every token is to be told from those before it.
#pragma once

#include <ziggurat/objective/objective.h>
#include <ziggurat/objective/objective_config.h>

namespace ziggurat::objective {

// cross_entropy, z_loss and label_smoothing if the config has a coefficient for them, and a router's losses.
class NextToken final : public Objective {
 public:
  explicit NextToken(const model::Gpt& model, const ObjectiveConfig& config = {});
  Tensor loss(Tape& tape, const model::TokenBatch& batch) override;

 private:
  ObjectiveConfig config_;
};

}  // namespace ziggurat::objective
