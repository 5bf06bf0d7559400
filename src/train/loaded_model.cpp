#include <set>
#include <vector>

#include <fmt/ranges.h>

#include <ziggurat/core/flight_log.h>
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
    : LoadedModel(checkpoint, config, model::place(config.model, options.layout, world.size()), world,
                  options) {}

LoadedModel::LoadedModel(CheckpointReader& checkpoint, RunConfig config, model::PlacedModel placed,
                         Communicator& world, const LoadOptions& options)
    : LoadedModel((config.model = std::move(placed.config), config),
                  ProcessGroups(world, std::move(placed.plan)), options) {
  load(checkpoint);
  if (options.form == WeightForm::panels) store_->to_panels();
}

void LoadedModel::load(CheckpointReader& checkpoint) {
  if (groups_.world().size() > 1) checkpoint.verify_together(groups_.world());
  for (const nn::ParamEntry& entry : store_->entries()) {
    const nn::ParamSpec& spec = entry.spec;
    int64_t row = 0;  // of what is held
    for (const Box& box : nn::held_boxes(spec)) {
      const int64_t rows = box.extent[0];
      checkpoint.read({spec.name, spec.global_shape, box, entry.param.value.rows(row, row + rows)});
      row += rows;
    }
    flight_log().note_progress();
  }
  store_->values_changed();
}

std::string LoadedModel::weight_hash(CheckpointReader& checkpoint) const {
  Communicator& world = groups_.world();
  std::string mine;
  HostPieces pieces;
  int64_t part = 0;  // of the model, which ranks take in turns
  for (const nn::ParamEntry& entry : store_->entries()) {
    const Shape& shape = entry.spec.global_shape;
    const int64_t parts = is_expert(entry.spec) ? shape[0] : 1, rows = shape[0] / parts;
    Arena memory("a tensor to hash", Arena::all_memory());
    const Tensor values = allocate(memory, entry.param.value.dtype(), with(shape, 0, rows));
    for (int64_t i = 0; i < parts; ++i) {
      if (part++ % world.size() != world.rank()) continue;
      checkpoint.read({entry.spec.name, shape, rows_of(shape, i * rows, (i + 1) * rows), values});
      Hasher hasher;
      pieces.read(values.reshape({values.numel()}),
                  [&](const Tensor& piece, int64_t) { hasher.update(bytes_of(piece)); });
      mine += fmt::format("{} {} {} {}\n", entry.spec.name, shape, i, content_hash(hasher));
    }
    flight_log().note_progress();
  }
  std::set<std::string> lines;
  for (const std::string& text : world.all_gather_text(mine)) {
    for (size_t begin = 0; begin < text.size(); begin = text.find('\n', begin) + 1) {
      lines.insert(text.substr(begin, text.find('\n', begin) - begin));
    }
  }
  const std::string all = fmt::format("{}", fmt::join(lines, "\n"));
  return content_hash(std::as_bytes(std::span(all)));
}

}  // namespace ziggurat::train
