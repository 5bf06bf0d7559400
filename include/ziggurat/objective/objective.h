// What a model is trained for: makes of a micro-batch the parts of its loss, and where their gradients begin.
// Trainer, evaluation, plan and tests all use the same one.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ziggurat/model/gpt.h>

namespace ziggurat::objective {

// A part of the loss. A step's is the sum over its micro-batches, divided by its counted tokens or by the
// number of its micro-batches.
enum class Mean { over_tokens, over_micro_batches };
struct LossPart {
  std::string name;  // in metrics.jsonl
  Mean mean = Mean::over_tokens;
};

class Objective {
 public:
  // `model` must outlive it.
  explicit Objective(const model::Gpt& model) : model_(model) {}
  virtual ~Objective() = default;
  Objective(const Objective&) = delete;
  Objective& operator=(const Objective&) = delete;

  // Of loss(), in order; the same for a whole run. The first is the cross-entropy with the targets, in nats
  // and without any coefficient: runs are judged and compared by it. All others count as they are in the
  // loss that is differentiated, with their coefficients.
  const std::vector<LossPart>& parts() const { return parts_; }
  int64_t part_count() const { return static_cast<int64_t>(parts_.size()); }

  // Before the micro-batches of a step, which begins after `tokens` of the run. True: what loss() queues is
  // no longer what it queued in the step before, apart from numbers that kernels read on the device.
  // Collective over all ranks.
  virtual bool begin_step(int64_t tokens, Stream& stream);

  // Numbers that the step goes by, for its record: (name, value).
  using Settings = std::vector<std::pair<std::string, double>>;
  virtual Settings settings() const { return {}; }

  // Of the micro-batch that the tape began, in training: f64 [part_count()] on the tape's device, in its
  // memory; nobody has waited for them. Their gradients have begun: tape.backward() does the rest.
  virtual Tensor loss(Tape& tape, const model::TokenBatch& batch) = 0;

  // What the model alone makes of a micro-batch, by which it is validated: ops::LossResult as f64
  // [ops::kLossSums], as loss() returns it. While the tape records, its gradients begin too. `token_losses`:
  // as in ops::LossArgs.
  Tensor evaluate(Tape& tape, const model::TokenBatch& batch, double* token_losses = nullptr) const;

 protected:
  const model::Gpt& model() const { return model_; }
  void add_part(LossPart part) { parts_.push_back(std::move(part)); }
  // The losses of routers, which every model with experts has: the last parts. Into [2] of loss()'s result,
  // once the micro-batch's forward is queued.
  void add_router_parts();
  void add_router_losses(const Tensor& parts, Stream& stream) const;

 private:
  const model::Gpt& model_;
  std::vector<LossPart> parts_;
};

}  // namespace ziggurat::objective
