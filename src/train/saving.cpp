// Checkpoints of a trainer: every parameter and moment by its global name, and the data cursor.
#include <cmath>
#include <random>

#include <nlohmann/json.hpp>

#include "train/resume_checks.h"
#include <ziggurat/comm/agreement.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/log.h>
#include <ziggurat/train/finite.h>
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
    const std::vector<std::string> names = saved_names(spec.name);
    const Tensor tensors[] = {store.master(entry), store.moment1(entry), store.moment2(entry)};
    for (size_t i = 0; i < names.size(); ++i) {
      slices.push_back({names[i], spec.global_shape, begin, end, tensors[i]});
    }
  }
  return slices;
}

std::vector<std::string> names_of(const nn::ParamStore& store) {
  std::vector<std::string> names;
  for (const nn::ParamEntry& entry : store.entries()) names.push_back(entry.spec.name);
  return names;
}

std::string random_id() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}", random(), random());
}

}  // namespace

// Masters and moments by their bits; and the loss of one micro-batch, for weights that are finite but compute
// nothing. Collective: the same answer on every rank.
std::string Trainer::fault_of_weights() {
  const std::string found = first_not_finite(store_, world_);
  if (!found.empty()) return "not finite: " + found;
  const int64_t width = config_.batch.micro_batch;
  const model::TokenBatch batch = batches_.read(*train_data_, world_.rank() * width, width);
  tape_.begin({.seed = static_cast<uint64_t>(config_.seed),
               .step = step_,
               .index = world_.rank(),
               .count = world_.size(),
               .training = false});
  double bad = std::isfinite(model_.loss(tape_, batch, 0.0).sum) ? 0 : 1;
  world_.all_reduce(Tensor(&bad, DType::f64, {1}), ReduceOp::max, ReduceOrder::any, stream_).wait();
  return bad == 0 ? "" : "the loss of these weights is not finite";
}

void Trainer::save() {
  const Timer timer;
  const std::string fault = fault_of_weights();
  check(
      fault.empty(), ErrorKind::numeric,
      "step {}: no checkpoint is written, since the weights are of no use ({}). Lower optimizer.lr, lengthen "
      "optimizer.warmup_tokens or raise optimizer.eps, and start again: the run goes on from the newest "
      "checkpoint before",
      step_, fault);
  folder_.sync();  // so that no record is younger than the checkpoint that follows it
  CheckpointInfo checkpoint;
  checkpoint.run_id = config_.name;
  checkpoint.step = step_;
  checkpoint.config = dump_config(config_);
  checkpoint.keep = static_cast<int>(config_.checkpoint.keep);
  checkpoint.lineage = &lineage_;
  checkpoint.state = {{"step", step_},
                      {"consumed_samples", consumed_samples_},
                      {"seed", config_.seed},
                      {"data", train_data_->fingerprint()},
                      {"tokenizer", train_data_->tokenizer_sha256()}};
  const std::vector<TensorSlice> slices = slices_of(store_, groups_, true);
  try {
    save_checkpoint(folder_.checkpoints(), checkpoint, slices, world_);
  } catch (const Error&) {
    // On every rank. If somebody removed the folder meanwhile, what is in memory goes into a new one.
    const auto made_again = [&] { return folder_.keep(step_) ? "yes" : ""; };
    if (on_rank_0(world_, made_again).empty()) throw;
    remake_log_file();
    save_checkpoint(folder_.checkpoints(), checkpoint, slices, world_);
  }
  info("checkpoint of step {} saved in {:.1f} s: {}", step_, timer.seconds(), folder_.checkpoints());
}

void Trainer::resume() {
  std::string resumed_from;
  if (config_.checkpoint.resume == Resume::automatic) resumed_from = load_newest_usable();
  if (resumed_from.empty()) lineage_.id = on_rank_0(world_, random_id);
  total_steps_ = step_ + steps_left(config_, consumed_samples_);
  finished_ = step_ == total_steps_ && folder_.ended_at(step_);
  if (!finished_) {
    folder_.begin({.step = step_,
                   .resumed_from = resumed_from,
                   .config = dump_config(config_),
                   .lineage = lineage_.id});
  }
}

std::string Trainer::load_newest_usable() {
  std::vector<std::string> unusable;
  for (int64_t below = INT64_MAX;;) {
    NewestValid newest = open_newest_valid(folder_.checkpoints(), world_, below);
    unusable.insert(unusable.end(), newest.skipped.begin(), newest.skipped.end());
    if (!newest.reader) break;
    const std::string fault = load(*newest.reader);
    if (fault.empty()) {
      for (const std::string& reason : unusable) warn("checkpoint skipped: {}", reason);
      info("resumed at step {} from {}", step_, newest.reader->path());
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

std::string Trainer::load(CheckpointReader& checkpoint) {
  const nlohmann::json& state = checkpoint.manifest().state;
  step_ = state.at("step").get<int64_t>();
  consumed_samples_ = state.at("consumed_samples").get<int64_t>();
  // A run that was begun with another batch may end past the samples of one that was not.
  const int64_t samples = samples_of_run(config_, consumed_samples_);
  if (samples > samples_of_run(config_)) train_data_ = open_split(config_, Split::train, samples);
  check_resumable(checkpoint, config_, *train_data_, names_of(store_));
  for (const TensorSlice& slice : slices_of(store_, groups_, false)) checkpoint.read(slice);
  store_.refresh_compute_copies();
  optimizer_.set_steps_done(step_);
  lineage_ = {lineage_of(checkpoint.manifest()), {step_}};
  return fault_of_weights();
}

}  // namespace ziggurat::train
