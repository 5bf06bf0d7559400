// Checkpoints of a trainer: every parameter and moment by its global name, and the data cursor.
#include <nlohmann/json.hpp>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/log.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::train {

namespace {

// The rows of every tensor that this rank holds. Experts shared by several expert-data-parallel ranks, and
// replicated parameters, are written by the first of them.
std::vector<TensorSlice> slices_of(nn::ParamStore& store, const ProcessGroups& groups, bool owned_only) {
  std::vector<TensorSlice> slices;
  for (const nn::ParamEntry& entry : store.entries()) {
    const nn::ParamSpec& spec = entry.spec;
    const bool replicated = spec.expert_parallel == 0;
    const Communicator& holders = replicated ? groups.world() : groups.expert_dp(spec.expert_parallel);
    if (owned_only && holders.rank() != 0) continue;
    const int64_t begin = replicated ? 0 : spec.row_begin;
    const int64_t end = replicated ? spec.global_shape[0] : spec.row_end;
    const auto add = [&](const std::string& name, const Tensor& data) {
      slices.push_back({name, spec.global_shape, begin, end, data});
    };
    add(spec.name, store.master(entry));
    add("adam.m." + spec.name, store.moment1(entry));
    add("adam.v." + spec.name, store.moment2(entry));
  }
  return slices;
}

}  // namespace

void Trainer::save() {
  const Timer timer;
  CheckpointInfo checkpoint;
  checkpoint.run_id = config_.name;
  checkpoint.step = step_;
  checkpoint.config = dump_config(config_);
  checkpoint.keep = static_cast<int>(config_.checkpoint.keep);
  checkpoint.state = {{"step", step_},
                      {"consumed_samples", consumed_samples_},
                      {"seed", config_.seed},
                      {"data", train_data_->fingerprint()},
                      {"tokenizer", train_data_->tokenizer_sha256()}};
  save_checkpoint(checkpoint_folder(), checkpoint, slices_of(store_, groups_, true), world_);
  info("checkpoint of step {} saved in {:.1f} s: {}", step_, timer.seconds(), checkpoint_folder());
}

void Trainer::resume() {
  if (config_.checkpoint.resume == Resume::never) return;
  if (world_.rank() == 0) remove_stale_temporaries(checkpoint_folder());
  world_.barrier();
  NewestValid newest = open_newest_valid(checkpoint_folder(), world_);
  for (const std::string& reason : newest.skipped) warn("checkpoint skipped: {}", reason);
  if (!newest.reader) return;

  const nlohmann::json& state = newest.reader->manifest().state;
  const auto changed = first_difference(state.at("data").get<std::string>(), train_data_->fingerprint());
  check(!changed, ErrorKind::checkpoint,
        "{}: was trained on other data, or in another order, than the config gives now. The first "
        "difference: {}. Restore the data, or start afresh with another output folder or "
        "checkpoint.resume=never",
        newest.reader->path(), changed.value_or(""));
  check(state.at("seed").get<int64_t>() == config_.seed, ErrorKind::checkpoint,
        "{}: was trained with seed {}, the config says {}", newest.reader->path(),
        state.at("seed").get<int64_t>(), config_.seed);
  for (const TensorSlice& slice : slices_of(store_, groups_, false)) newest.reader->read(slice);
  store_.refresh_compute_copies();
  step_ = state.at("step").get<int64_t>();
  consumed_samples_ = state.at("consumed_samples").get<int64_t>();
  optimizer_.set_steps_done(step_);
  info("resumed at step {} from {}", step_, newest.reader->path());

  RunConfig saved;
  parse_config(saved, newest.reader->manifest().config, newest.reader->path());
  for (const ConfigDifference& d : config_diff(saved, config_)) {
    if (d.key != "train.tokens") warn("changed since the checkpoint: {}: {} -> {}", d.key, d.before, d.after);
  }
}

}  // namespace ziggurat::train
