// What a student is trained for: the next token, and for a while what a teacher thinks of it.
#pragma once

#include <functional>
#include <memory>

#include <ziggurat/memory/arena.h>
#include <ziggurat/objective/distil_config.h>
#include <ziggurat/objective/objective.h>
#include <ziggurat/objective/objective_config.h>
#include <ziggurat/objective/teacher.h>

namespace ziggurat::objective {

// NextToken's parts, and `distillation` after those of tokens: weight T^2 KL(teacher || student) of the
// counted tokens, the weight by tokens of the run. The teacher answers as in evaluation, without dropout,
// noise and drops. It is loaded when it is first needed, and leaves the memory when it is needed no more.
// Checkpoints name it by the hash of its weights: a run does not go on with another one.
class Distillation final : public Objective {
 public:
  // Collective over all ranks, called in begin_step(); again after a run went back to where it needs one.
  using LoadTeacher = std::function<std::unique_ptr<Teacher>()>;
  Distillation(const model::Gpt& student, const ObjectiveConfig& config, const DistilConfig& distil,
               int64_t train_tokens, LoadTeacher load, Device device);

  bool begin_step(int64_t tokens, Stream& stream) override;
  Settings settings() const override { return {{"distillation_weight", weight_}}; }
  const Teacher* teacher() const override { return teacher_.get(); }
  State state() const override;
  void resume(const State& state) override;
  Tensor loss(Tape& tape, const model::TokenBatch& batch) override;

 private:
  static constexpr const char* kTeacher = "teacher";
  void take_teacher();

  ObjectiveConfig config_;
  DistilConfig distil_;
  int64_t train_tokens_;
  LoadTeacher load_;
  std::unique_ptr<Teacher> teacher_;
  std::string teacher_hash_;  // of the one that the run has learned from so far
  double weight_ = 0;
  Arena arena_;
  Tensor weight_there_;  // f64 [1], on the device: kernels read it
};

}  // namespace ziggurat::objective
