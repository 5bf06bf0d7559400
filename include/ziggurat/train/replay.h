// A past step once more: from a checkpoint before it, in memory, with the same bits.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/train/metrics.h>

namespace ziggurat::train {

struct ReplayOptions {
  std::string checkpoint;  // a run's folder, its checkpoints/, or one step_N of them
  int64_t step = 0;        // the one to look at
  std::string dump;        // pattern as of a shell, of names; empty: nothing
  std::string output;      // folder of the dump
};

struct ReplayedStep {
  StepRecord record;
  std::optional<double> recorded;  // the loss in the run's metrics.jsonl; none: it does not tell
  bool differs() const { return recorded && *recorded != record.loss; }
};

// Goes on from the newest checkpoint of an earlier step, with its config, up to the step, and reports each.
// Nothing is written but the dump: of each rank rank_N.safetensors, with what it holds and updates of
//   NAME, and the optimizer's moments of it as checkpoints name them, adam.m.NAME   after the step
//   gradient.NAME                                  of the step, reduced, before clipping
//   output.embedding.M, output.blocks.L.M, output.final_norm.M    what came out of them in the rank's Mth
//                                                  micro-batch of the step, from 0: [tokens, hidden]
// as far as `dump` matches. Tensors are whole, whole rows (experts), or flat (shared by parallel.zero); the
// file's metadata tell of each which elements of which shape. Throws Error(argument) where there is no such
// checkpoint, or it was trained on another number of ranks than `world` has. `progress(done, total)` hears of
// steps. Collective.
void replay(const ReplayOptions& options, Communicator& world,
            const std::function<void(const ReplayedStep&)>& report,
            const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace ziggurat::train
