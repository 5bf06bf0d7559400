// The teacher of a run (objective/distillation.h): a checkpoint with a layout of its own on the same ranks.
#pragma once

#include <memory>
#include <optional>

#include <ziggurat/data/sample_source.h>
#include <ziggurat/objective/objective.h>
#include <ziggurat/train/training.h>

namespace ziggurat::train {

// What the run is trained for. `groups` and `model` are the student's, and must outlive it. On a meta device
// the teacher is planned, not loaded.
std::unique_ptr<objective::Objective> make_objective(const RunConfig& config, const ProcessGroups& groups,
                                                     const model::Gpt& model, Device device);

// The config of the teacher's run, with the precision that it computes in here: from its checkpoint, or,
// where that is not there yet, from distil.teacher_config. Nothing where neither is there.
std::optional<RunConfig> teacher_of(const RunConfig& config);

// Error(config) unless the checkpoint is there and fits the run: vocabulary, tokenizer, sequences, and the
// layers that the student begins as.
void check_teacher(const RunConfig& config, const SampleSource& data);
// The same from what of the teacher is on this machine, without its weights and the data: its checkpoint, or
// distil.teacher_config. `tokenizer_sha256` is that of the run's data; empty: not known. False: there is
// neither.
bool check_present_teacher(const RunConfig& config, const std::string& tokenizer_sha256);

// FLOPs of a token in the teacher, forward; 0 while there is none.
double teacher_flops(const Training& training, const RunConfig& config);

// The values with which distil.init_layers has the student start: masters, and weights from them.
// Error(config) naming what does not fit. Collective.
void start_from_teacher(const RunConfig& config, Training& training, Stream& stream);

}  // namespace ziggurat::train
