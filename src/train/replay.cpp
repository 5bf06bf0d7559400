#include <filesystem>
#include <fstream>
#include <map>

#include <nlohmann/json.hpp>

#include "train/replay_dump.h"
#include "train/temporary_run.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/config/config.h>
#include <ziggurat/train/replay.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::train {

namespace {

namespace fs = std::filesystem;

// The newest one of fewer steps than `step`.
std::string checkpoint_before(const std::string& path, int64_t step) {
  std::vector<std::string> all = list_checkpoints(path);
  if (all.empty()) all = list_checkpoints((fs::path(path) / "checkpoints").string());
  if (all.empty()) all = {CheckpointReader(path).path()};  // says what is wrong with it
  for (const std::string& one : all) {                     // newest first
    if (CheckpointReader(one).manifest().step < step) return fs::absolute(one).lexically_normal().string();
  }
  fail(ErrorKind::argument,
       "--step {}: expected one after the oldest checkpoint of {}, {}; name a later step, or keep more "
       "checkpoints (checkpoint.keep)",
       step, path, all.back());
}

// Losses by step, of the run that a checkpoint lies in.
std::map<int64_t, double> recorded_losses(const fs::path& checkpoint) {
  std::map<int64_t, double> losses;
  std::ifstream file(checkpoint.parent_path().parent_path() / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || json.value("kind", "") != "step" || !json.contains("loss_hex")) continue;
    losses[json.value("step", int64_t{-1})] =
        std::strtod(json["loss_hex"].get<std::string>().c_str(), nullptr);
  }
  return losses;
}

}  // namespace

void replay(const ReplayOptions& options, Communicator& world,
            const std::function<void(const ReplayedStep&)>& report,
            const std::function<void(int64_t done, int64_t total)>& progress) {
  const std::string checkpoint =
      on_rank_0(world, [&] { return checkpoint_before(options.checkpoint, options.step); });
  RunConfig config;
  {
    const CheckpointReader reader(checkpoint);
    const int64_t ranks = reader.manifest().world_size;
    parse_config(config, reader.manifest().config, checkpoint);
    check(ranks == world.size() || config.reproducible == Reproducible::strict, ErrorKind::argument,
          "{} was trained on {} ranks, which decide its bits: start `mpirun -n {} ziggurat replay`",
          checkpoint, ranks, ranks);
  }
  TemporaryRun run(config, "replay", world);
  run.config().checkpoint.resume = Resume::automatic;
  on_rank_0(world, [&] {  // the trainer finds it as if it were its own
    const fs::path folder = fs::path(run.config().output) / "checkpoints";
    fs::create_directories(folder);
    fs::create_directory_symlink(checkpoint, folder / fs::path(checkpoint).filename());
    return std::string();
  });
  const std::map<int64_t, double> losses = recorded_losses(checkpoint);
  if (!options.dump.empty()) run.config().train.graphs = Graphs::off;  // which show no outputs; the same bits
  Trainer trainer(run.config(), world);
  SeenOutputs outputs(trainer, options.dump);
  const int64_t first = trainer.steps_done();
  while (trainer.steps_done() < options.step) {
    if (trainer.steps_done() == options.step - 1) outputs.watch();
    ReplayedStep step;
    step.record = trainer.step();
    const auto found = losses.find(step.record.step);
    if (found != losses.end()) step.recorded = found->second;
    report(step);
    if (progress) progress(trainer.steps_done() - first, options.step - first);
  }
  if (!options.dump.empty()) dump(trainer, outputs, options, world);
}

}  // namespace ziggurat::train
