#include <set>
#include <vector>

#include <fmt/ranges.h>

#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/io/content_hash.h>
#include <ziggurat/tensor/host_pieces.h>
#include <ziggurat/train/loaded_model.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {

namespace {
bool is_expert(const nn::ParamSpec& spec) { return spec.expert_parallel > 0; }
}  // namespace

LoadedModel::LoadedModel(const RunConfig& config, ProcessGroups groups, const LoadOptions& options)
    : groups_(std::move(groups)),
      store_(std::make_unique<nn::ParamStore>(
          nn::ParamStore::Options{.compute = compute_dtype(config.precision),
                                  .device = options.device,
                                  .reproducible = options.reproducible,
                                  .trainable = false,
                                  .step_tokens = options.form == WeightForm::packed ? 1 : 0})),
      model_(std::make_unique<model::Gpt>(model::fit_to_ranks(config.model, groups_.plan().world_size()),
                                          *store_, groups_, options.low_memory)) {
  store_->finalize();
}

LoadedModel::LoadedModel(CheckpointReader& checkpoint, const RunConfig& config, Communicator& world,
                         const LoadOptions& options)
    : LoadedModel(
          config,
          ProcessGroups(
              world, ParallelPlan(world.size(),
                                  model::fit_to_ranks(config.model, world.size()).expert_parallel_sizes())),
          options) {
  load(checkpoint);
  if (options.form == WeightForm::panels) store_->to_panels();
}

void LoadedModel::load(CheckpointReader& checkpoint) {
  if (groups_.world().size() > 1) checkpoint.verify_together(groups_.world());
  int64_t bytes = 0, done = 0;
  for (const nn::ParamEntry& entry : store_->entries()) bytes += entry.param.value.bytes();
  Progress progress("load", "", bytes);
  for (const nn::ParamEntry& entry : store_->entries()) {
    const nn::ParamSpec& spec = entry.spec;
    const int64_t begin = is_expert(spec) ? spec.row_begin : 0,
                  end = is_expert(spec) ? spec.row_end : spec.global_shape[0];
    checkpoint.read(
        {spec.name, spec.global_shape, rows_of(spec.global_shape, begin, end), entry.param.value});
    flight_log().note_progress();
    progress.update(done += entry.param.value.bytes());
  }
  store_->values_changed();
}

std::string LoadedModel::weight_hash() const {
  Communicator& world = groups_.world();
  std::string mine;
  HostPieces pieces;
  for (const nn::ParamEntry& entry : store_->entries()) {
    if (!is_expert(entry.spec) && world.rank() != 0) continue;
    const Tensor& values = entry.param.value;
    const int64_t parts = is_expert(entry.spec) ? values.dim(0) : 1, numel = values.numel() / parts;
    for (int64_t i = 0; i < parts; ++i) {
      Hasher hasher;
      pieces.read(values.reshape({values.numel()}).rows(i * numel, (i + 1) * numel),
                  [&](const Tensor& piece, int64_t) { hasher.update(bytes_of(piece)); });
      mine += fmt::format("{} {} {} {}\n", entry.spec.name, entry.spec.global_shape, entry.spec.row_begin + i,
                          content_hash(hasher));
    }
  }
  std::set<std::string> lines;  // experts that several ranks hold count once
  for (const std::string& text : world.all_gather_text(mine)) {
    for (size_t begin = 0; begin < text.size(); begin = text.find('\n', begin) + 1) {
      lines.insert(text.substr(begin, text.find('\n', begin) - begin));
    }
  }
  const std::string all = fmt::format("{}", fmt::join(lines, "\n"));
  return content_hash(std::as_bytes(std::span(all)));
}

}  // namespace ziggurat::train
