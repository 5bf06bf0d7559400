#include <algorithm>

#include <nlohmann/json.hpp>

#include "train/resume_checks.h"
#include "train/run_state.h"
#include "train/saved_tensors.h"
#include <ziggurat/comm/agreement.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/injection.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/io/random_id.h>
#include <ziggurat/optim/rules.h>
#include <ziggurat/train/checkpoints.h>
#include <ziggurat/train/finite.h>
#include <ziggurat/train/replica_check.h>
#include <ziggurat/train/teacher.h>

namespace ziggurat::train {

Checkpoints::Checkpoints(const RunConfig& config, Training& training, RunData& data, Evaluation& evaluation,
                         Executor& executor, RunFolder& folder)
    : config_(config),
      training_(training),
      data_(data),
      evaluation_(evaluation),
      executor_(executor),
      folder_(folder),
      saver_(folder.checkpoints(), training.groups.world(), config.checkpoint.async) {}

// Masters and moments by their bits; and the loss of one sequence, for weights that are finite but compute
// nothing. Collective: the same answer on every rank.
std::string Checkpoints::fault_of_weights() {
  executor_.stream.wait();  // what follows reads them beside it
  const std::string found = first_not_finite(training_.optimizer.state(), training_.groups.world());
  if (!found.empty()) return "not finite: " + found;
  return evaluation_.computes_finite_loss(*data_.train) ? "" : "the loss of these weights is not finite";
}

Checkpoints::Ended Checkpoints::start_save() {
  flight_log().begin_phase(Phase::save, training_.cursor.step);
  const Timer stall;
  reach(Site::save, training_.groups.world().rank(), training_.cursor.step);
  const std::string apart = first_disagreement(training_.optimizer.state(), training_.groups);
  check(apart.empty(), ErrorKind::numeric,
        "step {}: no checkpoint is written, since ranks that must hold the same weights do not: {}. A "
        "machine of "
        "theirs is faulty; start again without it: the run goes on from the newest checkpoint before",
        training_.cursor.step, apart);
  const std::string fault = fault_of_weights();
  check(
      fault.empty(), ErrorKind::numeric,
      "step {}: no checkpoint is written, since the weights are of no use ({}). Lower optimizer.lr, lengthen "
      "optimizer.warmup_tokens or raise optimizer.eps, and start again: the run goes on from the newest "
      "checkpoint before",
      training_.cursor.step, fault);
  // If somebody removed the folder meanwhile, what is in memory goes into a new one.
  const auto made_again = [&] { return folder_.keep(training_.cursor.step) ? "yes" : ""; };
  if (!on_rank_0(training_.groups.world(), made_again).empty()) remake_log_file();
  CheckpointInfo checkpoint;
  checkpoint.run_id = config_.name;
  checkpoint.step = training_.cursor.step;
  checkpoint.config = dump_config(config_);
  checkpoint.keep = static_cast<int>(config_.checkpoint.keep);
  checkpoint.keep_every = config_.checkpoint.keep_every;
  checkpoint.lineage = &lineage_;
  checkpoint.synced_first = folder_.metrics();  // so that no record is younger than the checkpoint after it
  checkpoint.state = state_of(training_);
  checkpoint.state.update({{"seed", config_.seed},
                           {"data", data_.train->fingerprint()},
                           {"tokenizer", data_.train->tokenizer_sha256()}});
  if (const auto told = training_.objective->state(); !told.empty()) checkpoint.state["objective"] = told;
  return saver_.start(checkpoint, tensors_to_write(training_.optimizer.state(), training_.groups), stall);
}

Checkpoints::Ended Checkpoints::finish() {
  if (saver_.pending() == 0) return {};
  flight_log().begin_phase(Phase::save, training_.cursor.step);
  return saver_.finish();
}

std::string Checkpoints::begin() {
  lineage_.id = on_rank_0(training_.groups.world(), random_id);
  if (!config_.distil.init_layers.empty()) start_from_teacher(config_, training_, executor_.stream);
  return "";
}

std::string Checkpoints::restore_newest() {
  flight_log().begin_phase(Phase::load, 0);
  const std::string from = load_newest_usable();
  return from.empty() ? begin() : from;
}

std::string Checkpoints::load_newest_usable() {
  std::vector<std::string> unusable;
  for (int64_t below = INT64_MAX;;) {
    NewestValid newest = open_newest_valid(folder_.checkpoints(), training_.groups.world(), below);
    unusable.insert(unusable.end(), newest.skipped.begin(), newest.skipped.end());
    if (!newest.reader) break;
    const std::string fault = load(*newest.reader);
    if (fault.empty()) {
      for (const std::string& reason : unusable) warn("checkpoint skipped: {}", reason);
      info("resumed at step {} from {}", training_.cursor.step, newest.reader->path());
      tell_changes(*newest.reader, config_);
      return newest.reader->path();
    }
    unusable.push_back(fmt::format("{}: {}", newest.reader->path(), fault));
    below = newest.reader->manifest().step;
  }
  check(unusable.empty(), ErrorKind::checkpoint,
        "{} holds checkpoints, but none that can be used:\n  {}\nRestore one of them, choose another output, "
        "or "
        "begin anew with checkpoint.resume=never, which keeps them in {}/earlier_N",
        folder_.checkpoints(), fmt::join(unusable, "\n  "), config_.output_folder());
  return "";
}

std::string Checkpoints::load(CheckpointReader& checkpoint) {
  const nlohmann::json& state = checkpoint.manifest().state;
  restore_state(state, training_);
  training_.objective->resume(state.value("objective", objective::Objective::State{}));
  data_.reach_end(config_, training_.cursor);
  check_resumable(checkpoint, config_, *data_.train, saved_parameters(training_.optimizer.state()));
  const std::vector<std::string> saved = checkpoint.names();
  const auto held_slices = held_tensors(training_.optimizer.state());
  int64_t bytes = 0, done = 0;
  for (const TensorSlice& slice : held_slices) bytes += slice.data.bytes();
  Progress progress("load", "", bytes);
  for (const TensorSlice& slice : held_slices) {
    // A starting point need not have moments, which are zero then.
    const bool held = std::find(saved.begin(), saved.end(), slice.name) != saved.end();
    held ? checkpoint.read(slice) : fill_zero(slice.data, executor_.stream);
    flight_log().note_progress();
    progress.update(done += slice.data.bytes());
  }
  if (config_.optimizer.average > 0 && !holds_average(checkpoint)) {
    start_average(training_.optimizer.state(), executor_.stream);
    if (training_.cursor.step > 0) {
      info("optimizer.average: {} holds none, it begins as the weights of step {}", checkpoint.path(),
           training_.cursor.step);
    }
  }
  training_.optimizer.state().publish(executor_.stream);
  training_.optimizer.set_steps_done(training_.cursor.step - training_.cursor.left_out);
  lineage_ = {lineage_of(checkpoint.manifest()), {training_.cursor.step}};
  return fault_of_weights();
}

}  // namespace ziggurat::train
