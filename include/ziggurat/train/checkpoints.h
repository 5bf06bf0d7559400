// Checkpoints of a run: every master and moment by its global name, and the cursor.
#pragma once

#include <string>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/checkpoint/saver.h>
#include <ziggurat/train/evaluation.h>
#include <ziggurat/train/run_data.h>
#include <ziggurat/train/run_folder.h>
#include <ziggurat/train/training.h>

namespace ziggurat::train {

class Checkpoints {
 public:
  // All must outlive it.
  Checkpoints(const RunConfig& config, Training& training, RunData& data, Evaluation& evaluation,
              Executor& executor, RunFolder& folder);

  // A run begins, of which there are none yet. Collective.
  std::string begin();
  // Loads the newest one that can be used and says why it skipped any; the data grow if the run it is of is
  // longer. Returns its step directory; "" if there is none, and a run begins. Throws Error(checkpoint) where
  // there are some and none can be used. Collective.
  std::string restore_newest();

  // The same while a run is under way, when all saves have ended; "" and nothing has changed where there is
  // none. Collective.
  std::string rewind() { return load_newest_usable(); }

  // Collective, all of them. Throws Error(numeric), and saves nothing, for weights that are not finite, of no
  // use, or not the same on all ranks that hold them. With checkpoint.async it returns when they are copied.
  // All three return what ended since the last call, in the order of the saves.
  using Ended = std::vector<SaveOutcome>;
  Ended start_save();
  Saver::Lag lag() const { return saver_.lag(); }
  Ended advance(const Saver::Lag& worst) { return saver_.advance(worst); }  // once a step; waits for no disk
  Ended finish();                                                           // waits for all

  const std::string& lineage() const { return lineage_.id; }  // of the run

 private:
  std::string load_newest_usable();
  std::string load(CheckpointReader& from);  // what is wrong with its weights; empty: nothing
  std::string fault_of_weights();

  const RunConfig& config_;
  Training& training_;
  RunData& data_;
  Evaluation& evaluation_;
  Executor& executor_;
  RunFolder& folder_;
  Lineage lineage_;  // before the saver, whose thread uses it
  Saver saver_;
};

}  // namespace ziggurat::train
