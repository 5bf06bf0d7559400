#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include <fnmatch.h>
#include <nlohmann/json.hpp>

#include "train/resume_checks.h"
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

// What a rank holds and updates of one tensor.
struct Piece {
  TensorHeader header;
  Tensor data;        // flat
  std::string where;  // in the global tensor
};

std::vector<Piece> pieces_of(Trainer& trainer, const std::string& pattern) {
  std::vector<Piece> pieces;
  OptimizerState& state = trainer.optimizer_state();
  const nn::ParamStore& store = state.store();
  const auto add = [&](const std::string& name, const Shape& global, int64_t first, const Tensor& data) {
    if (data.numel() == 0 || fnmatch(pattern.c_str(), name.c_str(), 0) != 0) return;
    const std::vector<Box> boxes = boxes_of(global, first, first + data.numel());
    const Shape shape = boxes.size() == 1 ? boxes[0].extent : Shape{data.numel()};
    pieces.push_back({{name, data.dtype(), shape},
                      data,
                      fmt::format("elements {} to {} of {}", first, first + data.numel() - 1, global)});
  };
  for (const nn::ParamEntry& entry : store.entries()) {
    const nn::ParamSpec& spec = entry.spec;
    const IndexRange owned = store.owned(entry);
    const int64_t first = entry.first + owned.begin;
    add(spec.name, spec.global_shape, first, state.master(entry));
    add("gradient." + spec.name, spec.global_shape, first, store.owned_gradient(entry));
    for (const OptimizerState::Moment& moment : state.moments(entry)) {
      add(saved_name(moment.name, spec.name), moment.global_shape, moment.first, moment.held);
    }
  }
  // As the file wants them.
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return size_of(a.header.dtype) > size_of(b.header.dtype);
  });
  return pieces;
}

void dump(Trainer& trainer, const ReplayOptions& options, Communicator& world) {
  const std::vector<Piece> pieces = pieces_of(trainer, options.dump);
  const auto write = [&] {
    check(!pieces.empty(), ErrorKind::argument,
          "--dump '{}' matches no tensor: expected a pattern of names such as 'gradient.blocks.0.*'",
          options.dump);
    std::error_code error;
    fs::create_directories(options.output, error);
    check(!error, ErrorKind::argument, "--output {}: cannot make the folder: {}", options.output,
          error.message());
    std::vector<TensorHeader> headers;
    std::map<std::string, std::string> metadata;
    for (const Piece& piece : pieces) {
      headers.push_back(piece.header);
      metadata[piece.header.name] = piece.where;
    }
    HostPieces host;
    const auto make = [&](size_t i, const WriteBytes& bytes) {
      host.read(pieces[i].data, [&](const Tensor& piece, int64_t) { bytes(bytes_of(piece)); });
    };
    write_safetensors(fmt::format("{}/rank_{}.safetensors", options.output, world.rank()), headers, make,
                      metadata);
    return std::string();
  };
  agree(world, write);
}

}  // namespace

void replay(const ReplayOptions& options, Communicator& world,
            const std::function<void(const ReplayedStep&)>& report) {
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
  Trainer trainer(run.config(), world);
  while (trainer.steps_done() < options.step) {
    ReplayedStep step;
    step.record = trainer.step();
    const auto found = losses.find(step.record.step);
    if (found != losses.end()) step.recorded = found->second;
    report(step);
  }
  if (!options.dump.empty()) dump(trainer, options, world);
}

}  // namespace ziggurat::train
